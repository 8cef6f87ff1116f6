! The twin of csrc/examples/failing.c in its mode "numbered". It fills in the table itself, since a function of one row
! has no way to return an error.
module failing
    use, intrinsic :: iso_c_binding, only: c_intptr_t
    use demos
    implicit none
    private
    public :: log_density

    real(c_double), parameter :: LOG_SQRT_2_PI = 0.91893853320467274178_c_double

    interface
        ! int pause(void);
        function c_pause() result(status) bind(c, name="pause")
            import :: c_int32_t
            integer(c_int32_t) :: status
        end function
    end interface

contains

    function log_density(user, n, d, p, x, params, params_stride, value, error) result(status) bind(c)
        type(c_ptr), value :: user
        integer(c_size_t), value :: n, d, p
        real(c_double), intent(in) :: x(d, n), params(*)
        integer(c_size_t), value :: params_stride
        real(c_double), intent(inout) :: value(n)
        type(demos_error), intent(inout) :: error
        integer(c_int32_t) :: status
        integer(c_size_t) :: i
        status = DEMOS_OK
        if (c_associated(user) .or. p /= 1) status = DEMOS_INTERNAL
        do i = 1, n
            if (status /= DEMOS_OK) return
            associate (sigma => params(1 + (i - 1) * params_stride))
                value(i) = -0.5_c_double * (x(1, i) / sigma)**2 - log(sigma) - LOG_SQRT_2_PI
            end associate
            call fail(x(1, i), value(i), error, status)
        end do
    end function

    subroutine fail(x, value, error, status)
        real(c_double), intent(in) :: x
        real(c_double), intent(inout) :: value
        type(demos_error), intent(inout) :: error
        integer(c_int32_t), intent(inout) :: status
        real(c_double), pointer, volatile :: pointer
        character(len=40) :: text
        select case (int(x))
        case (2)
            write (text, '(a,f0.1)') 'x is ', x
            status = demos_report(error, DEMOS_MODEL_FAILED, text)
        case (3)
            value = sqrt(-x)
        case (4)
            do while (status == DEMOS_OK)
                if (c_pause() == 0) exit
            end do
        case (5)
            call c_f_pointer(transfer(8_c_intptr_t, c_null_ptr), pointer)
            pointer = x
        case (6)
            stop 3
        case (7)
            allocate (pointer)
            nullify (pointer)
        end select
    end subroutine

end module failing

program server_program
    use demos_mpi
    use failing, only: log_density
    implicit none
    character(kind=c_char), target :: spec(200)
    type(demos_model) :: model
    type(demos_error) :: error
    spec = c_null_char
    associate (json => demos_to_c('{"name": "failing", "parameters": [{"name": "sigma", "default": 1.0,'// &
            ' "lower": 1e-3}], "observables": ["x"]}'))
        spec(:size(json)) = json
    end associate
    model = demos_model(size=int(c_sizeof(model), c_int32_t), spec=c_loc(spec), log_density=c_funloc(log_density))
    if (demos_mpi_serve(model, c_null_ptr, error) /= DEMOS_OK) error stop 1
end program server_program
