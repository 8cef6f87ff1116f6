! demos_texts.f90: texts, unsigned numbers and errors between C and Fortran.
!
! Old codes want -fno-automatic, by which local variables keep their values but for those of recursive procedures. So
! what is pure, or called by several threads of a model at a time, is recursive; and no result is an allocatable text,
! of which gfortran then forgets the length.
module demos_texts
    use, intrinsic :: iso_fortran_env, only: error_unit
    use demos_types
    use demos_library, only: demos_status_name
    implicit none
    private
    public :: demos_to_text, demos_to_c, demos_unsigned, demos_report, conclude

    ! A text of C, up to its 0, as one of Fortran: demos_to_text(error%message), demos_to_text(demos_version()).
    interface demos_to_text
        module procedure :: text_of_array, text_of_pointer
    end interface

    ! An unsigned number of 8, 16 or 32 bits, as one of 64.
    interface demos_unsigned
        module procedure :: unsigned_8, unsigned_16, unsigned_32
    end interface

    interface
        ! size_t strlen(const char *s);
        pure function strlen(s) result(length) bind(c)
            import :: c_ptr, c_size_t
            type(c_ptr), value :: s
            integer(c_size_t) :: length
        end function
    end interface

contains

    pure recursive function text_of_array(array) result(text)
        character(kind=c_char), intent(in) :: array(*)
        character(len=length_of_array(array)) :: text
        integer :: i
        do i = 1, len(text)
            text(i:i) = array(i)
        end do
    end function

    pure recursive function length_of_array(array) result(length)
        character(kind=c_char), intent(in) :: array(*)
        integer :: length
        length = 0
        do while (array(length + 1) /= c_null_char)
            length = length + 1
        end do
    end function

    ! "" for a null pointer.
    recursive function text_of_pointer(pointer) result(text)
        type(c_ptr), intent(in) :: pointer
        character(len=length_at_pointer(pointer)) :: text
        character(kind=c_char), pointer :: array(:)
        if (.not. c_associated(pointer)) return
        call c_f_pointer(pointer, array, [len(text) + 1])
        text = text_of_array(array)
    end function

    pure recursive function length_at_pointer(pointer) result(length)
        type(c_ptr), intent(in) :: pointer
        integer :: length
        length = 0
        if (c_associated(pointer)) length = int(strlen(pointer))
    end function

    ! A text, with its blanks, as C takes it.
    pure recursive function demos_to_c(text) result(array)
        character(len=*), intent(in) :: text
        character(kind=c_char) :: array(len(text) + 1)
        integer :: i
        do i = 1, len(text)
            array(i) = text(i:i)
        end do
        array(len(text) + 1) = c_null_char
    end function

    elemental function unsigned_8(number) result(value)
        integer(c_int8_t), intent(in) :: number
        integer(c_int64_t) :: value
        value = iand(int(number, c_int64_t), int(z'ff', c_int64_t))
    end function

    elemental function unsigned_16(number) result(value)
        integer(c_int16_t), intent(in) :: number
        integer(c_int64_t) :: value
        value = iand(int(number, c_int64_t), int(z'ffff', c_int64_t))
    end function

    elemental function unsigned_32(number) result(value)
        integer(c_int32_t), intent(in) :: number
        integer(c_int64_t) :: value
        value = iand(int(number, c_int64_t), int(z'ffffffff', c_int64_t))
    end function

    ! What demos_fail() is in C, which Fortran cannot call: writes status and text, and returns the status.
    recursive function demos_report(error, status, text) result(reported)
        type(demos_error), intent(inout) :: error
        integer(c_int32_t), intent(in) :: status
        character(len=*), intent(in) :: text   ! without trailing blanks
        integer(c_int32_t) :: reported
        integer :: length
        length = min(len_trim(text), int(DEMOS_MESSAGE_BYTES) - 1)
        error%status = status
        error%message(:length + 1) = demos_to_c(text(:length))
        reported = status
    end function

    ! As Fortran's own statements do it.
    subroutine conclude(status, error, stat, errmsg)
        integer(c_int32_t), intent(in) :: status
        type(demos_error), intent(in) :: error
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        if (present(stat)) stat = status
        if (status == DEMOS_OK) return
        if (present(errmsg)) errmsg = demos_to_text(error%message)
        if (present(stat)) return
        write (error_unit, '(4a)') 'demos: ', demos_to_text(demos_status_name(status)), ': ', &
            demos_to_text(error%message)
        error stop 1
    end subroutine

end module demos_texts
