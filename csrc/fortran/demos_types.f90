! demos_types.f90: the numbers and types of demos.h under their names there, and what the functions of a code look like,
! the C prototype above each. demos.f90 says what all this is for.
module demos_types
    use, intrinsic :: iso_c_binding, only: c_char, c_double, c_f_pointer, c_funloc, c_funptr, c_int8_t, c_int16_t, &
        c_int32_t, c_int64_t, c_loc, c_null_char, c_null_funptr, c_null_ptr, c_ptr, c_size_t, c_sizeof, c_associated
    implicit none
    public

    ! ---- Numbers ------------------------------------------------------------------------------------------------

    ! enum demos_wire
    integer(c_int32_t), parameter :: DEMOS_MAGIC = int(z'534f4d44', c_int32_t), DEMOS_WIRE_MAJOR = 1, &
        DEMOS_WIRE_MINOR = 0, DEMOS_MAX_ARRAYS = 8, DEMOS_MAX_DIMS = 8, DEMOS_ALIGNMENT = 8, &
        DEMOS_INLINE_BYTES = 16384, DEMOS_PIECE_BYTES = 4194304
    ! enum demos_kind
    integer(c_int32_t), parameter :: DEMOS_REQUEST = 1, DEMOS_ROWS = 2, DEMOS_CANCEL = 3, DEMOS_REPLY = 4, &
        DEMOS_CHUNK = 5, DEMOS_RESULT = 6, DEMOS_HELLO = 7, DEMOS_WELCOME = 8, DEMOS_GOODBYE = 9, &
        DEMOS_END = 10, DEMOS_CHALLENGE = 11, DEMOS_PROOF = 12, DEMOS_PING = 13, DEMOS_PONG = 14, &
        DEMOS_BEAT = 15, DEMOS_TICKET = 16, DEMOS_NOW = 17, DEMOS_SWITCH = 18, DEMOS_RING = 19, &
        DEMOS_COMPRESSED = 20
    ! enum demos_operation
    integer(c_int32_t), parameter :: DEMOS_LOG_DENSITY = 1, DEMOS_LOG_DENSITY_GRADIENT = 2, &
        DEMOS_LOG_LIKELIHOOD = 3, DEMOS_LOG_LIKELIHOOD_GRADIENT = 4, DEMOS_SAMPLE = 5, DEMOS_EVALUATE = 6, &
        DEMOS_METADATA = 7, DEMOS_SET_PARAMS = 8, DEMOS_STATISTICS = 9, DEMOS_DRAIN = 10, DEMOS_STOP = 11, &
        DEMOS_DATASET = 12, DEMOS_DESCRIBE = 13, DEMOS_DIGEST = 14, DEMOS_UPLOAD = 15
    ! enum demos_status
    integer(c_int32_t), parameter :: DEMOS_OK = 0, DEMOS_INVALID_INPUT = 1, DEMOS_NOT_OFFERED = 2, &
        DEMOS_MODEL_FAILED = 3, DEMOS_MODEL_CRASHED = 4, DEMOS_BUSY = 5, DEMOS_DRAINING = 6, &
        DEMOS_CANCELLED = 7, DEMOS_DEADLINE = 8, DEMOS_TOO_LARGE = 9, DEMOS_STALE_REVISION = 10, &
        DEMOS_BAD_FRAME = 11, DEMOS_BAD_VERSION = 12, DEMOS_SERVER_LOST = 13, DEMOS_INTERNAL = 14, &
        DEMOS_MODEL_NOT_FOUND = 15, DEMOS_REFUSED = 16, DEMOS_DATASET_FAILED = 17
    ! enum demos_flag
    integer(c_int32_t), parameter :: DEMOS_FINAL = 1, DEMOS_WRT_X = 2, DEMOS_BLOCK_MAJOR = 4, &
        DEMOS_FRESH_SEED = 8, DEMOS_RESIDENT = 16
    ! enum demos_dtype
    integer(c_int32_t), parameter :: DEMOS_FLOAT64 = 1, DEMOS_FLOAT32 = 2, DEMOS_INT64 = 3, DEMOS_INT32 = 4, &
        DEMOS_UINT64 = 5, DEMOS_UINT32 = 6, DEMOS_UINT8 = 7, DEMOS_BOOL = 8, DEMOS_COMPLEX128 = 9
    ! enum demos_abi
    integer(c_int32_t), parameter :: DEMOS_ABI_MAJOR = 1, DEMOS_ABI_MINOR = 0, DEMOS_MESSAGE_BYTES = 1024
    ! enum demos_model_flag. Without DEMOS_THREAD_SAFE one thread of a process calls the model: right for all that keeps
    ! something in COMMON, in a module or in a saved variable. Large local arrays are saved ones too for many compilers,
    ! unless a procedure is recursive (gfortran -frecursive, ifx -recursive, or -fopenmp).
    integer(c_int32_t), parameter :: DEMOS_THREAD_SAFE = 1, DEMOS_REENTRANT = 2, DEMOS_SINGLE = 4, &
        DEMOS_ROWS_DEPEND = 8, DEMOS_OWN_RANDOM = 16, DEMOS_ONE_POINT = 32

    ! ---- Types --------------------------------------------------------------------------------------------------
    ! Fortran has no unsigned integers: demos_unsigned() reads them.

    type, bind(c) :: demos_header
        integer(c_int32_t) :: magic = DEMOS_MAGIC
        integer(c_int8_t) :: major = 0, minor = 0, kind = 0, operation = 0
        integer(c_int16_t) :: status = 0, flags = 0, model = 0, n_arrays = 0
        integer(c_int64_t) :: id = 0, first_row = 0, n_rows = 0, payload = 0
        integer(c_int32_t) :: revision = 0, deadline_ms = 0
        integer(c_int64_t) :: seed = 0
    end type

    type, bind(c) :: demos_array
        integer(c_int8_t) :: dtype = 0, n_dims = 0
        integer(c_int8_t) :: reserved(6) = 0_c_int8_t
        integer(c_int64_t) :: shape(DEMOS_MAX_DIMS) = 0   ! in C's order: the last one runs fastest
    end type

    type, bind(c) :: demos_error
        integer(c_int32_t) :: status = DEMOS_OK
        character(kind=c_char) :: message(DEMOS_MESSAGE_BYTES) = c_null_char
    end type

    type, bind(c) :: demos_stream
        integer(c_int64_t) :: key(2), counter(4), buffer(4)
        integer(c_int32_t) :: used, reserved
    end type

    ! Pointers to functions of the abstract interfaces below, by c_funloc().
    type, bind(c) :: demos_model
        integer(c_int32_t) :: size = 0
        integer(c_int16_t) :: major = int(DEMOS_ABI_MAJOR, c_int16_t), minor = int(DEMOS_ABI_MINOR, c_int16_t)
        integer(c_int32_t) :: flags = 0, reserved = 0
        type(c_ptr) :: spec = c_null_ptr
        type(c_ptr) :: user = c_null_ptr
        type(c_funptr) :: log_density = c_null_funptr              ! demos_log_density_rows
        type(c_funptr) :: log_density_gradient = c_null_funptr     ! demos_gradient_rows
        type(c_funptr) :: log_density_gradient_x = c_null_funptr   ! demos_gradient_x_rows
        type(c_funptr) :: sample = c_null_funptr                   ! demos_sample_rows
        type(c_funptr) :: evaluate = c_null_funptr                 ! demos_evaluate_rows
        type(c_funptr) :: create = c_null_funptr                   ! demos_create_user
        type(c_funptr) :: destroy = c_null_funptr                  ! demos_destroy_user
    end type

    type, bind(c) :: demos_functions
        integer(c_int32_t) :: size = 0, flags = 0
        type(c_funptr) :: density = c_null_funptr                  ! demos_density_function
        type(c_funptr) :: log_density = c_null_funptr              ! demos_density_function
        type(c_funptr) :: log_density_gradient = c_null_funptr     ! demos_gradient_function
        type(c_funptr) :: log_density_gradient_x = c_null_funptr   ! demos_gradient_function
        type(c_funptr) :: sample = c_null_funptr                   ! demos_sampler_function
        type(c_funptr) :: evaluate = c_null_funptr                 ! demos_map_function
    end type

    ! ---- Functions that a code has ------------------------------------------------------------------------------

    abstract interface
        ! typedef double (*demos_density_function)(const double *x, const double *params);
        function demos_density_function(x, params) result(value) bind(c)
            import :: c_double
            real(c_double), intent(in) :: x(*)        ! (d)
            real(c_double), intent(in) :: params(*)   ! (p)
            real(c_double) :: value
        end function

        ! typedef double (*demos_gradient_function)(const double *x, const double *params, double *gradient);
        function demos_gradient_function(x, params, gradient) result(value) bind(c)
            import :: c_double
            real(c_double), intent(in) :: x(*)            ! (d)
            real(c_double), intent(in) :: params(*)       ! (p)
            real(c_double), intent(out) :: gradient(*)    ! (p), or (d) where it is that by x
            real(c_double) :: value
        end function

        ! typedef void (*demos_sampler_function)(double *x, const double *params);
        subroutine demos_sampler_function(x, params) bind(c)
            import :: c_double
            real(c_double), intent(out) :: x(*)       ! (d)
            real(c_double), intent(in) :: params(*)   ! (p)
        end subroutine

        ! typedef void (*demos_map_function)(double *out, const double *params);
        subroutine demos_map_function(out, params) bind(c)
            import :: c_double
            real(c_double), intent(out) :: out(*)     ! (q)
            real(c_double), intent(in) :: params(*)   ! (p)
        end subroutine

        ! typedef int32_t (*demos_model_init_function)(demos_model *model, const char *config, demos_error *error);
        ! A plug-in has one with `bind(c, name="demos_model_init")`.
        function demos_model_init_function(model, config, error) result(status) bind(c)
            import :: c_char, c_int32_t, demos_error, demos_model
            type(demos_model), intent(inout) :: model
            character(kind=c_char), intent(in) :: config(*)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! The members of demos_model. The point of row i is params(1 + (i - 1) * params_stride : ).

        ! int32_t (*log_density)(void *user, size_t n, size_t d, size_t p, const double *x,
        !                        const double *params, size_t params_stride, double *value, demos_error *error);
        function demos_log_density_rows(user, n, d, p, x, params, params_stride, value, error) result(status) bind(c)
            import :: c_double, c_int32_t, c_ptr, c_size_t, demos_error
            type(c_ptr), value :: user
            integer(c_size_t), value :: n, d, p
            real(c_double), intent(in) :: x(d, n), params(*)
            integer(c_size_t), value :: params_stride
            real(c_double), intent(inout) :: value(n)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t (*log_density_gradient)(void *user, size_t n, size_t d, size_t p, const double *x,
        !                                 const double *params, size_t params_stride, double *value,
        !                                 double *gradient, demos_error *error);
        function demos_gradient_rows(user, n, d, p, x, params, params_stride, value, gradient, error) &
            result(status) bind(c)
            import :: c_double, c_int32_t, c_ptr, c_size_t, demos_error
            type(c_ptr), value :: user
            integer(c_size_t), value :: n, d, p
            real(c_double), intent(in) :: x(d, n), params(*)
            integer(c_size_t), value :: params_stride
            real(c_double), intent(inout) :: value(n), gradient(p, n)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t (*log_density_gradient_x)(void *user, size_t n, size_t d, size_t p, const double *x,
        !                                   const double *params, size_t params_stride, double *value,
        !                                   double *gradient, demos_error *error);
        function demos_gradient_x_rows(user, n, d, p, x, params, params_stride, value, gradient, error) &
            result(status) bind(c)
            import :: c_double, c_int32_t, c_ptr, c_size_t, demos_error
            type(c_ptr), value :: user
            integer(c_size_t), value :: n, d, p
            real(c_double), intent(in) :: x(d, n), params(*)
            integer(c_size_t), value :: params_stride
            real(c_double), intent(inout) :: value(n), gradient(d, n)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t (*sample)(void *user, size_t n, size_t d, size_t p, const double *params, demos_stream *stream,
        !                   double *x, demos_error *error);
        function demos_sample_rows(user, n, d, p, params, stream, x, error) result(status) bind(c)
            import :: c_double, c_int32_t, c_ptr, c_size_t, demos_error, demos_stream
            type(c_ptr), value :: user
            integer(c_size_t), value :: n, d, p
            real(c_double), intent(in) :: params(p)
            type(demos_stream), intent(inout) :: stream
            real(c_double), intent(inout) :: x(d, n)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t (*evaluate)(void *user, size_t m, size_t p, size_t q, const double *params, double *out,
        !                     demos_error *error);
        function demos_evaluate_rows(user, m, p, q, params, out, error) result(status) bind(c)
            import :: c_double, c_int32_t, c_ptr, c_size_t, demos_error
            type(c_ptr), value :: user
            integer(c_size_t), value :: m, p, q
            real(c_double), intent(in) :: params(p, m)
            real(c_double), intent(inout) :: out(q, m)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t (*create)(const struct demos_model *self, void **user, demos_error *error);
        function demos_create_user(self, user, error) result(status) bind(c)
            import :: c_int32_t, c_ptr, demos_error, demos_model
            type(demos_model), intent(in) :: self
            type(c_ptr), intent(inout) :: user
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! void (*destroy)(void *user);
        subroutine demos_destroy_user(user) bind(c)
            import :: c_ptr
            type(c_ptr), value :: user
        end subroutine
    end interface

end module demos_types
