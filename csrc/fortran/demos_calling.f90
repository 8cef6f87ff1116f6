! demos_calling.f90: demos_client_t, a model that is served elsewhere.
module demos_calling
    use demos_types
    use demos_library
    use demos_texts
    use demos_connecting
    implicit none
    private
    public :: demos_client_t

    ! n rows of d observables, p parameters, k points, q outputs. Results are allocated. `params` is one point (p), or
    ! (p, n) with one for each row; left out, it is the server's own. Arrays may have any number of elements, and none.
    type, extends(demos_connection) :: demos_client_t
    contains
        procedure, private :: client_log_density, client_log_density_rows
        generic :: log_density => client_log_density, client_log_density_rows
        procedure, private :: client_gradient, client_gradient_rows
        generic :: log_density_gradient => client_gradient, client_gradient_rows
        procedure, private :: client_log_likelihood, client_log_likelihoods
        generic :: log_likelihood => client_log_likelihood, client_log_likelihoods
        procedure, private :: client_sample, client_sample_long
        generic :: sample => client_sample, client_sample_long
        procedure, private :: client_evaluate, client_evaluate_rows
        generic :: evaluate => client_evaluate, client_evaluate_rows
    end type

    ! What an array without elements points to: a null pointer would stand for one that is left out.
    real(c_double), target :: nothing = 0

    interface address
        module procedure :: address_of_1, address_of_2
    end interface

contains

    ! log P(x_i | params) at one point,
    subroutine client_log_density(self, x, params, value, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        real(c_double), contiguous, intent(in) :: x(:, :)               ! (d, n)
        real(c_double), contiguous, target, intent(in), optional :: params(:)   ! (p)
        real(c_double), allocatable, intent(out) :: value(:)            ! (n)
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        integer(c_int32_t) :: status
        if (present(params)) then
            status = check_point(self, params, error)
            if (status == DEMOS_OK) status = density(self, x, address(params), 0_c_size_t, value, error)
        else
            status = density(self, x, c_null_ptr, 0_c_size_t, value, error)
        end if
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! and with a point for each row.
    subroutine client_log_density_rows(self, x, params, value, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        real(c_double), contiguous, intent(in) :: x(:, :)        ! (d, n)
        real(c_double), contiguous, target, intent(in) :: params(:, :)   ! (p, n)
        real(c_double), allocatable, intent(out) :: value(:)     ! (n)
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        integer(c_int32_t) :: status
        status = check_points(self, params, size(x, 2, c_size_t), error)
        if (status == DEMOS_OK) then
            status = density(self, x, address(params), size(params, 1, c_size_t), value, error)
        end if
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! The same with the gradient by params (p, n), or by x (d, n),
    subroutine client_gradient(self, x, params, value, gradient, wrt_x, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        real(c_double), contiguous, intent(in) :: x(:, :)               ! (d, n)
        real(c_double), contiguous, target, intent(in), optional :: params(:)   ! (p)
        real(c_double), allocatable, intent(out) :: value(:)            ! (n)
        real(c_double), allocatable, intent(out) :: gradient(:, :)      ! (p, n) or (d, n)
        logical, intent(in), optional :: wrt_x                          ! false unless given
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        integer(c_int32_t) :: status
        if (present(params)) then
            status = check_point(self, params, error)
            if (status == DEMOS_OK) then
                status = density(self, x, address(params), 0_c_size_t, value, error, gradient, wrt_x)
            end if
        else
            status = density(self, x, c_null_ptr, 0_c_size_t, value, error, gradient, wrt_x)
        end if
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! and with a point for each row.
    subroutine client_gradient_rows(self, x, params, value, gradient, wrt_x, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        real(c_double), contiguous, intent(in) :: x(:, :)            ! (d, n)
        real(c_double), contiguous, target, intent(in) :: params(:, :)   ! (p, n)
        real(c_double), allocatable, intent(out) :: value(:)         ! (n)
        real(c_double), allocatable, intent(out) :: gradient(:, :)   ! (p, n) or (d, n)
        logical, intent(in), optional :: wrt_x                       ! false unless given
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        integer(c_int32_t) :: status
        status = check_points(self, params, size(x, 2, c_size_t), error)
        if (status == DEMOS_OK) then
            status = density(self, x, address(params), size(params, 1, c_size_t), value, error, gradient, wrt_x)
        end if
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! The sum of log P over all rows at one point, and its gradient,
    subroutine client_log_likelihood(self, x, params, value, gradient, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        real(c_double), contiguous, intent(in) :: x(:, :)                            ! (d, n)
        real(c_double), contiguous, target, intent(in), optional :: params(:)   ! (p)
        real(c_double), intent(out) :: value
        real(c_double), allocatable, target, intent(out), optional :: gradient(:)    ! (p)
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        type(c_ptr) :: point, slope
        real(c_double) :: values(1)
        integer(c_int32_t) :: status
        point = c_null_ptr
        slope = c_null_ptr
        values = 0
        status = check_rows(self, x, error)
        if (present(params)) then
            if (status == DEMOS_OK) status = check_point(self, params, error)
            point = address(params)
        end if
        if (present(gradient)) then
            allocate (gradient(self%n_params()))
            slope = address(gradient)
        end if
        if (status == DEMOS_OK) then
            status = demos_client_log_likelihood(self%handle, size(x, 2, c_size_t), x, 1_c_size_t, point, values, &
                slope, error)
        end if
        value = values(1)
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! and at k points.
    subroutine client_log_likelihoods(self, x, params, value, gradient, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        real(c_double), contiguous, intent(in) :: x(:, :)                              ! (d, n)
        real(c_double), contiguous, target, intent(in) :: params(:, :)   ! (p, k)
        real(c_double), allocatable, intent(out) :: value(:)                           ! (k)
        real(c_double), allocatable, target, intent(out), optional :: gradient(:, :)   ! (p, k)
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        type(c_ptr) :: slope
        integer(c_int32_t) :: status
        slope = c_null_ptr
        allocate (value(size(params, 2, c_size_t)))
        status = check_rows(self, x, error)
        if (status == DEMOS_OK) then
            status = check_points(self, params, size(params, 2, c_size_t), error)
        end if
        if (present(gradient)) then
            allocate (gradient(size(params, 1), size(params, 2, c_size_t)))
            slope = address(gradient)
        end if
        if (status == DEMOS_OK) then
            status = demos_client_log_likelihood(self%handle, size(x, 2, c_size_t), x, size(params, 2, c_size_t), &
                address(params), value, slope, error)
        end if
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! Draws first_row to first_row + n of the sequence that the seed names: 64 bits, whatever they mean as a number.
    subroutine client_sample_long(self, n, seed, params, x, first_row, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        integer, intent(in) :: n
        integer(c_int64_t), intent(in) :: seed
        real(c_double), contiguous, target, intent(in), optional :: params(:)   ! (p)
        real(c_double), allocatable, intent(out) :: x(:, :)             ! (d, n)
        integer(c_int64_t), intent(in), optional :: first_row           ! a multiple of block_rows; 0 unless given
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        type(c_ptr) :: point
        integer(c_int64_t) :: first
        integer(c_int32_t) :: status
        point = c_null_ptr
        first = 0
        if (present(first_row)) first = first_row
        if (present(params)) then
            status = check_point(self, params, error)
            point = address(params)
        else
            status = check_connection(self, error)
        end if
        if (status == DEMOS_OK .and. (n < 0 .or. first < 0)) then
            status = demos_report(error, DEMOS_INVALID_INPUT, 'sample(): n or first_row is less than 0')
        end if
        allocate (x(self%n_observables(), max(n, 0)))
        if (status == DEMOS_OK) then
            status = demos_client_sample(self%handle, seed, first, int(n, c_size_t), point, x, error)
        end if
        call conclude(status, error, stat, errmsg)
    end subroutine

    subroutine client_sample(self, n, seed, params, x, first_row, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        integer, intent(in) :: n
        integer(c_int32_t), intent(in) :: seed
        real(c_double), contiguous, target, intent(in), optional :: params(:)   ! (p)
        real(c_double), allocatable, intent(out) :: x(:, :)             ! (d, n)
        integer(c_int64_t), intent(in), optional :: first_row           ! a multiple of block_rows; 0 unless given
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        call self%sample(n, int(seed, c_int64_t), params, x, first_row, stat, errmsg)
    end subroutine

    ! The forward map at one point,
    subroutine client_evaluate(self, params, out, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        real(c_double), contiguous, target, intent(in), optional :: params(:)   ! (p)
        real(c_double), allocatable, intent(out) :: out(:)              ! (q)
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        type(c_ptr) :: point
        integer(c_int32_t) :: status
        point = c_null_ptr
        allocate (out(self%n_outputs()))
        if (present(params)) then
            status = check_point(self, params, error)
            point = address(params)
        else
            status = check_connection(self, error)
        end if
        if (status == DEMOS_OK) status = demos_client_evaluate(self%handle, 1_c_size_t, point, out, error)
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! and at m points.
    subroutine client_evaluate_rows(self, params, out, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        real(c_double), contiguous, target, intent(in) :: params(:, :)   ! (p, m)
        real(c_double), allocatable, intent(out) :: out(:, :)    ! (q, m)
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        integer(c_int32_t) :: status
        allocate (out(self%n_outputs(), size(params, 2, c_size_t)))
        status = check_points(self, params, size(params, 2, c_size_t), error)
        if (status == DEMOS_OK) then
            status = demos_client_evaluate(self%handle, size(params, 2, c_size_t), address(params), &
                out, error)
        end if
        call conclude(status, error, stat, errmsg)
    end subroutine

    function density(self, x, params, stride, value, error, gradient, wrt_x) result(status)
        class(demos_client_t), intent(in) :: self
        real(c_double), contiguous, intent(in) :: x(:, :)
        type(c_ptr), intent(in) :: params
        integer(c_size_t), intent(in) :: stride
        real(c_double), allocatable, intent(out) :: value(:)
        type(demos_error), intent(inout) :: error
        real(c_double), allocatable, intent(out), optional :: gradient(:, :)
        logical, intent(in), optional :: wrt_x
        integer(c_int32_t) :: status
        logical :: by_x
        allocate (value(size(x, 2, c_size_t)))
        status = check_rows(self, x, error)
        if (status /= DEMOS_OK) return
        associate (n => size(x, 2, c_size_t), step => stride)
            if (.not. present(gradient)) then
                status = demos_client_log_density(self%handle, n, x, params, step, value, error)
                return
            end if
            by_x = .false.
            if (present(wrt_x)) by_x = wrt_x
            if (by_x) then
                allocate (gradient(self%n_observables(), n))
                status = demos_client_log_density_gradient_x(self%handle, n, x, params, step, value, gradient, error)
            else
                allocate (gradient(self%n_params(), n))
                status = demos_client_log_density_gradient(self%handle, n, x, params, step, value, gradient, error)
            end if
        end associate
    end function

    ! ---- Arrays -------------------------------------------------------------------------------------------------

    ! x is (d, n)
    function check_rows(self, x, error) result(status)
        class(demos_client_t), intent(in) :: self
        real(c_double), intent(in) :: x(:, :)
        type(demos_error), intent(inout) :: error
        integer(c_int32_t) :: status
        status = check_shape(self, 'x', shape(x, c_size_t), &
            [int(self%n_observables(), c_size_t), size(x, 2, c_size_t)], error)
    end function

    ! params is (p),
    function check_point(self, params, error) result(status)
        class(demos_client_t), intent(in) :: self
        real(c_double), intent(in) :: params(:)
        type(demos_error), intent(inout) :: error
        integer(c_int32_t) :: status
        status = check_shape(self, 'params', shape(params, c_size_t), [int(self%n_params(), c_size_t)], error)
    end function

    ! or (p, n).
    function check_points(self, params, n, error) result(status)
        class(demos_client_t), intent(in) :: self
        real(c_double), intent(in) :: params(:, :)
        integer(c_size_t), intent(in) :: n
        type(demos_error), intent(inout) :: error
        integer(c_int32_t) :: status
        status = check_shape(self, 'params', shape(params, c_size_t), [int(self%n_params(), c_size_t), n], error)
    end function

    ! Never null.
    function address_of_1(array) result(pointer)
        real(c_double), contiguous, target, intent(in) :: array(:)
        type(c_ptr) :: pointer
        pointer = c_loc(nothing)
        if (size(array, kind=c_size_t) > 0) pointer = c_loc(array)
    end function

    function address_of_2(array) result(pointer)
        real(c_double), contiguous, target, intent(in) :: array(:, :)
        type(c_ptr) :: pointer
        pointer = c_loc(nothing)
        if (size(array, kind=c_size_t) > 0) pointer = c_loc(array)
    end function

end module demos_calling
