! Reads the frames of a file, as bytes of a stream, by the types of module demos, and prints what is in them: a line for
! each header, and for each array its dtype, shape and bytes. Arrays behind the end of the file are those of a head.
program frames
    use demos
    implicit none
    type(demos_header) :: header
    type(demos_array) :: arrays(DEMOS_MAX_ARRAYS)
    integer(c_int64_t) :: start, at, size
    character(len=1000) :: path
    integer :: unit, i

    call get_command_argument(1, path)
    open (newunit=unit, file=trim(path), access='stream', form='unformatted', status='old', action='read')
    inquire (unit, size=size)
    start = 0
    do while (start + c_sizeof(header) <= size)
        read (unit, pos=start + 1) header
        if (header%magic /= DEMOS_MAGIC .or. header%major /= DEMOS_WIRE_MAJOR) error stop 'this is no frame'
        print '(a,*(1x,i0))', 'frame', start, header%minor, demos_unsigned(header%kind), &
            demos_unsigned(header%operation), demos_unsigned(header%status), demos_unsigned(header%flags), &
            demos_unsigned(header%model), demos_unsigned(header%n_arrays), header%id, header%first_row, &
            header%n_rows, header%payload, demos_unsigned(header%revision), demos_unsigned(header%deadline_ms), &
            header%seed
        at = start + c_sizeof(header)
        do i = 1, int(header%n_arrays)
            read (unit, pos=at + 1) arrays(i)%dtype, arrays(i)%n_dims, arrays(i)%reserved, &
                arrays(i)%shape(:arrays(i)%n_dims)
            at = at + 8 * (1 + arrays(i)%n_dims)
        end do
        do i = 1, int(header%n_arrays)
            at = (at + 7) / 8 * 8
            call show(arrays(i), at)
        end do
        start = (start + c_sizeof(header) + header%payload + 7) / 8 * 8
    end do

contains

    ! Doubles are read as such; they are told bit by bit.
    subroutine show(array, at)
        type(demos_array), intent(in) :: array
        integer(c_int64_t), intent(inout) :: at
        integer(c_int64_t) :: n, i
        integer(c_int8_t), allocatable :: bytes(:)
        real(c_double), allocatable :: doubles(:)
        n = product(array%shape(:array%n_dims))
        write (*, '(a,*(1x,i0))', advance='no') 'array', array%dtype, array%n_dims, array%shape(:array%n_dims)
        if (at + n * item_bytes(array%dtype) > size) then
            print '(a)', ' data null'
        else if (array%dtype == DEMOS_FLOAT64) then
            allocate (doubles(n))
            if (n > 0) read (unit, pos=at + 1) doubles
            print '(a,*(1x,z16.16))', ' data', (transfer(doubles(i), 0_c_int64_t), i=1, n)
        else
            allocate (bytes(n * item_bytes(array%dtype)))
            if (n > 0) read (unit, pos=at + 1) bytes
            print '(a,*(1x,z2.2))', ' data', bytes
        end if
        at = at + n * item_bytes(array%dtype)
    end subroutine

    pure function item_bytes(dtype) result(n)
        integer(c_int8_t), intent(in) :: dtype
        integer(c_int64_t) :: n
        select case (int(dtype))
        case (DEMOS_FLOAT64, DEMOS_INT64, DEMOS_UINT64)
            n = 8
        case (DEMOS_FLOAT32, DEMOS_INT32, DEMOS_UINT32)
            n = 4
        case (DEMOS_COMPLEX128)
            n = 16
        case default
            n = 1
        end select
    end function

end program frames
