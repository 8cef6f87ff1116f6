! demos.f90: demos.h for Fortran 2008; whatever is not said here is said there, part by part.
!
! Module files differ from compiler to compiler, and from version to version. So this source is what is installed, and
! your compiler compiles it, in front of your own sources:
!
!     gfortran -O2 -shared -fPIC $(demos-hpc config --fortran) my_model.f90 -o libmy_model.so $(demos-hpc config --libs)
!
! First come the numbers, types and functions of demos.h under their names there, the C prototype above each; then what
! is made of them for Fortran:
!
!     type(demos_server)     a code of scalar functions, registered one by one, described, and served
!     type(demos_client_t)   a model that is served elsewhere
!     demos_report()         status and text of an error, in place of C's demos_fail()
!     demos_to_text(), demos_to_c(), demos_unsigned()
!
! Arrays: C's [n][d] is Fortran's (d, n), the same bytes. A row is a column here, x(:, i), and lies in one piece.
!
! Errors: as with Fortran's own statements, `stat` becomes 0 or a status, and `errmsg` the text; where there is no
! `stat`, the text goes to the unit of errors, and the program ends by `error stop`.
!
! Names of iso_c_binding that one needs to use this module come with it: c_double, c_ptr, c_char and so on.
module demos
    use, intrinsic :: iso_c_binding, only: c_char, c_double, c_f_pointer, c_funloc, c_funptr, c_int8_t, c_int16_t, &
        c_int32_t, c_int64_t, c_loc, c_null_char, c_null_funptr, c_null_ptr, c_ptr, c_size_t, c_sizeof, c_associated
    use, intrinsic :: iso_fortran_env, only: error_unit
    implicit none
    public
    private :: error_unit, text_of_array, text_of_pointer, unsigned_8, unsigned_16, unsigned_32, conclude, address, shown

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

    ! ---- Functions of the library -------------------------------------------------------------------------------

    interface
        ! int32_t demos_adapt(const demos_functions *functions, demos_model *model, demos_error *error);
        ! `functions` is a saved variable with the attribute target: the model keeps its address.
        function demos_adapt(functions, model, error) result(status) bind(c)
            import :: c_int32_t, demos_error, demos_functions, demos_model
            type(demos_functions), intent(in), target :: functions
            type(demos_model), intent(inout) :: model
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! void demos_stream_set(demos_stream *stream, uint64_t seed, uint64_t block);
        subroutine demos_stream_set(stream, seed, block) bind(c)
            import :: c_int64_t, demos_stream
            type(demos_stream), intent(inout) :: stream
            integer(c_int64_t), value :: seed, block
        end subroutine

        ! uint64_t demos_stream_bits(demos_stream *stream);
        function demos_stream_bits(stream) result(bits) bind(c)
            import :: c_int64_t, demos_stream
            type(demos_stream), intent(inout) :: stream
            integer(c_int64_t) :: bits
        end function

        ! double demos_stream_uniform(demos_stream *stream);
        function demos_stream_uniform(stream) result(value) bind(c)
            import :: c_double, demos_stream
            type(demos_stream), intent(inout) :: stream
            real(c_double) :: value
        end function

        ! double demos_stream_normal(demos_stream *stream);
        function demos_stream_normal(stream) result(value) bind(c)
            import :: c_double, demos_stream
            type(demos_stream), intent(inout) :: stream
            real(c_double) :: value
        end function

        ! double demos_uniform(void);
        function demos_uniform() result(value) bind(c)
            import :: c_double
            real(c_double) :: value
        end function

        ! double demos_normal(void);
        function demos_normal() result(value) bind(c)
            import :: c_double
            real(c_double) :: value
        end function

        ! demos_stream *demos_use_stream(demos_stream *stream);
        function demos_use_stream(stream) result(before) bind(c)
            import :: c_ptr
            type(c_ptr), value :: stream
            type(c_ptr) :: before
        end function

        ! const char *demos_status_name(int32_t status);
        function demos_status_name(status) result(name) bind(c)
            import :: c_int32_t, c_ptr
            integer(c_int32_t), value :: status
            type(c_ptr) :: name
        end function

        ! const char *demos_version(void);
        function demos_version() result(version) bind(c)
            import :: c_ptr
            type(c_ptr) :: version
        end function

        ! uint32_t demos_abi_version(void);
        function demos_abi_version() result(version) bind(c)
            import :: c_int32_t
            integer(c_int32_t) :: version
        end function

        ! int32_t demos_config_number(const char *config, const char *name, double *value, demos_error *error);
        ! `name` as in "tolerance"//c_null_char.
        function demos_config_number(config, name, value, error) result(status) bind(c)
            import :: c_char, c_double, c_int32_t, demos_error
            character(kind=c_char), intent(in) :: config(*), name(*)
            real(c_double), intent(inout) :: value
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t demos_config_text(const char *config, const char *name, char *text, size_t size, demos_error *error);
        ! `text` is an array of characters; demos_to_text() makes a text of it.
        function demos_config_text(config, name, text, size, error) result(status) bind(c)
            import :: c_char, c_int32_t, c_size_t, demos_error
            character(kind=c_char), intent(in) :: config(*), name(*)
            character(kind=c_char), intent(inout) :: text(*)
            integer(c_size_t), value :: size
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t demos_serve(const demos_model *model, const char *spec, demos_error *error);
        function demos_serve(model, spec, error) result(status) bind(c)
            import :: c_int32_t, c_ptr, demos_error, demos_model
            type(demos_model), intent(in) :: model
            type(c_ptr), value :: spec
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t demos_connect(const char *model, demos_client **client, demos_error *error);
        function demos_connect(model, client, error) result(status) bind(c)
            import :: c_int32_t, c_ptr, demos_error
            type(c_ptr), value :: model
            type(c_ptr), intent(inout) :: client
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! void demos_disconnect(demos_client *client);
        subroutine demos_disconnect(client) bind(c)
            import :: c_ptr
            type(c_ptr), value :: client
        end subroutine

        ! size_t demos_client_observables(const demos_client *client);
        function demos_client_observables(client) result(d) bind(c)
            import :: c_ptr, c_size_t
            type(c_ptr), value :: client
            integer(c_size_t) :: d
        end function

        ! size_t demos_client_params(const demos_client *client);
        function demos_client_params(client) result(p) bind(c)
            import :: c_ptr, c_size_t
            type(c_ptr), value :: client
            integer(c_size_t) :: p
        end function

        ! size_t demos_client_outputs(const demos_client *client);
        function demos_client_outputs(client) result(q) bind(c)
            import :: c_ptr, c_size_t
            type(c_ptr), value :: client
            integer(c_size_t) :: q
        end function

        ! const char *demos_client_metadata(demos_client *client, demos_error *error);
        function demos_client_metadata(client, error) result(json) bind(c)
            import :: c_ptr, demos_error
            type(c_ptr), value :: client
            type(demos_error), intent(inout) :: error
            type(c_ptr) :: json
        end function

        ! int32_t demos_client_defaults(demos_client *client, double *params, demos_error *error);
        function demos_client_defaults(client, params, error) result(status) bind(c)
            import :: c_double, c_int32_t, c_ptr, demos_error
            type(c_ptr), value :: client
            real(c_double), intent(inout) :: params(*)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t demos_client_set_params(demos_client *client, const char *changes, uint32_t *revision,
        !                                 demos_error *error);
        function demos_client_set_params(client, changes, revision, error) result(status) bind(c)
            import :: c_char, c_int32_t, c_ptr, demos_error
            type(c_ptr), value :: client
            character(kind=c_char), intent(in) :: changes(*)
            integer(c_int32_t), intent(inout) :: revision
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! void demos_client_timeout(demos_client *client, double seconds);
        subroutine demos_client_timeout(client, seconds) bind(c)
            import :: c_double, c_ptr
            type(c_ptr), value :: client
            real(c_double), value :: seconds
        end subroutine

        ! In the following, `params` and some gradients may be c_null_ptr; otherwise they are c_loc() of an array.

        ! int32_t demos_client_log_density(demos_client *client, size_t n, const double *x, const double *params,
        !                                  size_t params_stride, double *value, demos_error *error);
        function demos_client_log_density(client, n, x, params, params_stride, value, error) result(status) bind(c)
            import :: c_double, c_int32_t, c_ptr, c_size_t, demos_error
            type(c_ptr), value :: client, params
            integer(c_size_t), value :: n, params_stride
            real(c_double), intent(in) :: x(*)
            real(c_double), intent(inout) :: value(*)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t demos_client_log_density_gradient(demos_client *client, size_t n, const double *x,
        !                                           const double *params, size_t params_stride, double *value,
        !                                           double *gradient, demos_error *error);
        function demos_client_log_density_gradient(client, n, x, params, params_stride, value, gradient, error) &
            result(status) bind(c)
            import :: c_double, c_int32_t, c_ptr, c_size_t, demos_error
            type(c_ptr), value :: client, params
            integer(c_size_t), value :: n, params_stride
            real(c_double), intent(in) :: x(*)
            real(c_double), intent(inout) :: value(*), gradient(*)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t demos_client_log_density_gradient_x(demos_client *client, size_t n, const double *x,
        !                                             const double *params, size_t params_stride, double *value,
        !                                             double *gradient, demos_error *error);
        function demos_client_log_density_gradient_x(client, n, x, params, params_stride, value, gradient, error) &
            result(status) bind(c)
            import :: c_double, c_int32_t, c_ptr, c_size_t, demos_error
            type(c_ptr), value :: client, params
            integer(c_size_t), value :: n, params_stride
            real(c_double), intent(in) :: x(*)
            real(c_double), intent(inout) :: value(*), gradient(*)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t demos_client_log_likelihood(demos_client *client, size_t n, const double *x, size_t k,
        !                                     const double *params, double *value, double *gradient,
        !                                     demos_error *error);
        function demos_client_log_likelihood(client, n, x, k, params, value, gradient, error) result(status) bind(c)
            import :: c_double, c_int32_t, c_ptr, c_size_t, demos_error
            type(c_ptr), value :: client, params, gradient
            integer(c_size_t), value :: n, k
            real(c_double), intent(in) :: x(*)
            real(c_double), intent(inout) :: value(*)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t demos_client_sample(demos_client *client, uint64_t seed, uint64_t first_row, size_t n,
        !                             const double *params, double *x, demos_error *error);
        function demos_client_sample(client, seed, first_row, n, params, x, error) result(status) bind(c)
            import :: c_double, c_int32_t, c_int64_t, c_ptr, c_size_t, demos_error
            type(c_ptr), value :: client, params
            integer(c_int64_t), value :: seed, first_row
            integer(c_size_t), value :: n
            real(c_double), intent(inout) :: x(*)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t demos_client_evaluate(demos_client *client, size_t m, const double *params, double *out,
        !                               demos_error *error);
        function demos_client_evaluate(client, m, params, out, error) result(status) bind(c)
            import :: c_double, c_int32_t, c_ptr, c_size_t, demos_error
            type(c_ptr), value :: client, params
            integer(c_size_t), value :: m
            real(c_double), intent(inout) :: out(*)
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function
    end interface

    ! What demos_serve() and demos_mpi_serve(), demos_connect() and demos_mpi_connect() are to the types below.
    abstract interface
        function demos_serve_function(model, spec, error) result(status) bind(c)
            import :: c_int32_t, c_ptr, demos_error, demos_model
            type(demos_model), intent(in) :: model
            type(c_ptr), value :: spec
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        function demos_connect_function(model, client, error) result(status) bind(c)
            import :: c_int32_t, c_ptr, demos_error
            type(c_ptr), value :: model
            type(c_ptr), intent(inout) :: client
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function
    end interface

    ! ---- Texts and numbers of C ---------------------------------------------------------------------------------

    ! A text of C, up to its 0, as one of Fortran: demos_to_text(error%message), demos_to_text(demos_version()).
    interface demos_to_text
        module procedure :: text_of_array, text_of_pointer
    end interface

    ! An unsigned number of 8, 16 or 32 bits, as one of 64.
    interface demos_unsigned
        module procedure :: unsigned_8, unsigned_16, unsigned_32
    end interface

    ! ---- A code that is served ----------------------------------------------------------------------------------

    ! Its functions have the attribute bind(c) and the interfaces above. For a plug-in it is a saved variable with the
    ! attribute target, which fill() makes a model of within demos_model_init(); a program of its own calls serve().
    type :: demos_server
        private
        type(demos_functions) :: functions
        character(kind=c_char), allocatable :: spec(:)
    contains
        procedure :: register_density => server_register_density
        procedure :: register_log_density => server_register_log_density
        procedure :: register_log_density_gradient => server_register_log_density_gradient
        procedure :: register_log_density_gradient_x => server_register_log_density_gradient_x
        procedure :: register_sample => server_register_sample
        procedure :: register_evaluate => server_register_evaluate
        procedure :: declare => server_declare
        procedure :: describe => server_describe
        procedure :: fill => server_fill
        procedure :: serve => server_serve
        procedure :: serve_by => server_serve_by
    end type

    ! ---- A model that is served elsewhere -----------------------------------------------------------------------

    ! n rows of d observables, p parameters, k points, q outputs. Results are allocated. `params` is one point (p), or
    ! (p, n) with one for each row; left out, it is the server's own. A copy is the same connection.
    type :: demos_client_t
        private
        type(c_ptr) :: handle = c_null_ptr
    contains
        procedure :: connect => client_connect
        procedure :: connect_by => client_connect_by
        procedure :: disconnect => client_disconnect
        procedure :: n_observables => client_n_observables
        procedure :: n_params => client_n_params
        procedure :: n_outputs => client_n_outputs
        procedure :: metadata => client_metadata
        procedure :: defaults => client_defaults
        procedure :: set_params => client_set_params
        procedure :: set_timeout => client_set_timeout
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
        procedure, private :: check => client_check
        procedure, private :: density => client_density
    end type

contains

    ! ---- Texts, numbers, errors ---------------------------------------------------------------------------------

    pure function text_of_array(array) result(text)
        character(kind=c_char), intent(in) :: array(*)
        character(len=:), allocatable :: text
        integer :: i, length
        length = 0
        do while (array(length + 1) /= c_null_char)
            length = length + 1
        end do
        allocate (character(len=length) :: text)
        do i = 1, length
            text(i:i) = array(i)
        end do
    end function

    ! "" for a null pointer.
    function text_of_pointer(pointer) result(text)
        type(c_ptr), intent(in) :: pointer
        character(len=:), allocatable :: text
        character(kind=c_char), pointer :: array(:)
        interface
            ! size_t strlen(const char *s);
            pure function strlen(s) result(length) bind(c)
                import :: c_ptr, c_size_t
                type(c_ptr), value :: s
                integer(c_size_t) :: length
            end function
        end interface
        if (c_associated(pointer)) then
            call c_f_pointer(pointer, array, [strlen(pointer) + 1])
            text = text_of_array(array)
        else
            text = ''
        end if
    end function

    ! A text, with its blanks, as C takes it.
    pure function demos_to_c(text) result(array)
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
    function demos_report(error, status, text) result(reported)
        type(demos_error), intent(inout) :: error
        integer(c_int32_t), intent(in) :: status
        character(len=*), intent(in) :: text   ! without trailing blanks
        integer(c_int32_t) :: reported
        integer :: length
        length = min(len_trim(text), DEMOS_MESSAGE_BYTES - 1)
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

    ! Null where an array is left out, or has no elements.
    function address(array, n) result(pointer)
        integer, intent(in) :: n
        real(c_double), target, intent(in) :: array(n)
        type(c_ptr) :: pointer
        pointer = c_null_ptr
        if (n > 0) pointer = c_loc(array)
    end function

    ! ---- demos_server -------------------------------------------------------------------------------------------

    ! P(x | params), 0 outside of the support; never negative.
    subroutine server_register_density(self, density)
        class(demos_server), intent(inout) :: self
        procedure(demos_density_function) :: density
        self%functions%density = c_funloc(density)
    end subroutine

    ! log P(x | params).
    subroutine server_register_log_density(self, log_density)
        class(demos_server), intent(inout) :: self
        procedure(demos_density_function) :: log_density
        self%functions%log_density = c_funloc(log_density)
    end subroutine

    ! log P, and its gradient by params (p).
    subroutine server_register_log_density_gradient(self, gradient)
        class(demos_server), intent(inout) :: self
        procedure(demos_gradient_function) :: gradient
        self%functions%log_density_gradient = c_funloc(gradient)
    end subroutine

    ! log P, and its gradient by x (d).
    subroutine server_register_log_density_gradient_x(self, gradient)
        class(demos_server), intent(inout) :: self
        procedure(demos_gradient_function) :: gradient
        self%functions%log_density_gradient_x = c_funloc(gradient)
    end subroutine

    ! One draw.
    subroutine server_register_sample(self, sample)
        class(demos_server), intent(inout) :: self
        procedure(demos_sampler_function) :: sample
        self%functions%sample = c_funloc(sample)
    end subroutine

    ! The outputs at one point.
    subroutine server_register_evaluate(self, evaluate)
        class(demos_server), intent(inout) :: self
        procedure(demos_map_function) :: evaluate
        self%functions%evaluate = c_funloc(evaluate)
    end subroutine

    ! Flags of the model, added up: DEMOS_THREAD_SAFE + DEMOS_OWN_RANDOM.
    subroutine server_declare(self, flags)
        class(demos_server), intent(inout) :: self
        integer(c_int32_t), intent(in) :: flags
        self%functions%flags = flags
    end subroutine

    ! What the model is, in JSON (docs/legacy.md); what is not said, a file says that stands beside the program.
    subroutine server_describe(self, json)
        class(demos_server), intent(inout) :: self
        character(len=*), intent(in) :: json
        self%spec = demos_to_c(json)
    end subroutine

    ! Makes *model of what was registered, and returns the status.
    function server_fill(self, model, error) result(status)
        class(demos_server), target, intent(inout) :: self
        type(demos_model), intent(inout) :: model
        type(demos_error), intent(inout) :: error
        integer(c_int32_t) :: status
        self%functions%size = int(c_sizeof(self%functions), c_int32_t)
        if (model%size == 0) model%size = int(c_sizeof(model), c_int32_t)
        if (allocated(self%spec)) model%spec = c_loc(self%spec)
        status = demos_adapt(self%functions, model, error)
    end function

    ! Serves until the service is over, for programs that `demos-hpc worker --join NAME --exec ./program` starts.
    subroutine server_serve(self, stat, errmsg)
        class(demos_server), target, intent(inout) :: self
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        call self%serve_by(demos_serve, stat, errmsg)
    end subroutine

    ! The same by demos_serve() or demos_mpi_serve().
    subroutine server_serve_by(self, serve, stat, errmsg)
        class(demos_server), target, intent(inout) :: self
        procedure(demos_serve_function) :: serve
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_model) :: model
        type(demos_error) :: error
        integer(c_int32_t) :: status
        status = self%fill(model, error)
        if (status == DEMOS_OK) status = serve(model, c_null_ptr, error)
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! ---- demos_client_t -----------------------------------------------------------------------------------------

    ! To a model by name or UUID, or to the only one that is served, for programs that `demos-hpc ticket NAME --
    ! ./program` starts.
    subroutine client_connect(self, model, stat, errmsg)
        class(demos_client_t), intent(inout) :: self
        character(len=*), intent(in), optional :: model
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        call self%connect_by(demos_connect, model, stat, errmsg)
    end subroutine

    ! The same by demos_connect() or demos_mpi_connect().
    subroutine client_connect_by(self, connect, model, stat, errmsg)
        class(demos_client_t), intent(inout) :: self
        procedure(demos_connect_function) :: connect
        character(len=*), intent(in), optional :: model
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        character(kind=c_char), allocatable, target :: name(:)
        type(demos_error) :: error
        integer(c_int32_t) :: status
        call self%disconnect()
        if (present(model)) then
            name = demos_to_c(trim(model))
            status = connect(c_loc(name), self%handle, error)
        else
            status = connect(c_null_ptr, self%handle, error)
        end if
        if (status /= DEMOS_OK) self%handle = c_null_ptr
        call conclude(status, error, stat, errmsg)
    end subroutine

    subroutine client_disconnect(self)
        class(demos_client_t), intent(inout) :: self
        call demos_disconnect(self%handle)
        self%handle = c_null_ptr
    end subroutine

    ! d, 0 without a connection.
    function client_n_observables(self) result(d)
        class(demos_client_t), intent(in) :: self
        integer :: d
        d = 0
        if (c_associated(self%handle)) d = int(demos_client_observables(self%handle))
    end function

    ! p
    function client_n_params(self) result(p)
        class(demos_client_t), intent(in) :: self
        integer :: p
        p = 0
        if (c_associated(self%handle)) p = int(demos_client_params(self%handle))
    end function

    ! q
    function client_n_outputs(self) result(q)
        class(demos_client_t), intent(in) :: self
        integer :: q
        q = 0
        if (c_associated(self%handle)) q = int(demos_client_outputs(self%handle))
    end function

    ! What the server says of the model now, in JSON.
    subroutine client_metadata(self, json, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        character(len=:), allocatable, intent(out) :: json
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        integer(c_int32_t) :: status
        type(c_ptr) :: text
        status = self%check(error)
        if (status == DEMOS_OK) then
            text = demos_client_metadata(self%handle, error)
            json = demos_to_text(text)
            if (.not. c_associated(text)) status = error%status
        end if
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! The server's own parameters now; nan where there is none.
    subroutine client_defaults(self, params, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        real(c_double), allocatable, intent(out) :: params(:)   ! (p)
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        integer(c_int32_t) :: status
        status = self%check(error)
        allocate (params(self%n_params()))
        if (status == DEMOS_OK) status = demos_client_defaults(self%handle, params, error)
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! Changes them for everybody; `changes` as in {"mass": 91.2}.
    subroutine client_set_params(self, changes, revision, stat, errmsg)
        class(demos_client_t), intent(in) :: self
        character(len=*), intent(in) :: changes
        integer(c_int32_t), intent(out), optional :: revision
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        integer(c_int32_t) :: status, new
        new = 0
        status = self%check(error)
        if (status == DEMOS_OK) status = demos_client_set_params(self%handle, demos_to_c(changes), new, error)
        if (present(revision)) revision = new
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! Seconds that a call may take from now on.
    subroutine client_set_timeout(self, seconds)
        class(demos_client_t), intent(in) :: self
        real(c_double), intent(in) :: seconds
        if (c_associated(self%handle)) call demos_client_timeout(self%handle, seconds)
    end subroutine

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
            status = self%check(error, 'params', shape(params), [self%n_params()])
            if (status == DEMOS_OK) status = self%density(x, address(params, size(params)), 0, value, error)
        else
            status = self%density(x, c_null_ptr, 0, value, error)
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
        status = self%check(error, 'params', shape(params), [self%n_params(), size(x, 2)])
        if (status == DEMOS_OK) then
            status = self%density(x, address(params, size(params)), size(params, 1), value, error)
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
            status = self%check(error, 'params', shape(params), [self%n_params()])
            if (status == DEMOS_OK) then
                status = self%density(x, address(params, size(params)), 0, value, error, gradient, wrt_x)
            end if
        else
            status = self%density(x, c_null_ptr, 0, value, error, gradient, wrt_x)
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
        status = self%check(error, 'params', shape(params), [self%n_params(), size(x, 2)])
        if (status == DEMOS_OK) then
            status = self%density(x, address(params, size(params)), size(params, 1), value, error, gradient, wrt_x)
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
        status = self%check(error, 'x', shape(x), [self%n_observables(), size(x, 2)])
        if (present(params)) then
            if (status == DEMOS_OK) status = self%check(error, 'params', shape(params), [self%n_params()])
            point = address(params, size(params))
        end if
        if (present(gradient)) then
            allocate (gradient(self%n_params()))
            slope = address(gradient, size(gradient))
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
        allocate (value(size(params, 2)))
        status = self%check(error, 'x', shape(x), [self%n_observables(), size(x, 2)])
        if (status == DEMOS_OK) then
            status = self%check(error, 'params', shape(params), [self%n_params(), size(params, 2)])
        end if
        if (present(gradient)) then
            allocate (gradient(size(params, 1), size(params, 2)))
            slope = address(gradient, size(gradient))
        end if
        if (status == DEMOS_OK) then
            status = demos_client_log_likelihood(self%handle, size(x, 2, c_size_t), x, size(params, 2, c_size_t), &
                address(params, size(params)), value, slope, error)
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
            status = self%check(error, 'params', shape(params), [self%n_params()])
            point = address(params, size(params))
        else
            status = self%check(error)
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
        integer, intent(in) :: seed
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
            status = self%check(error, 'params', shape(params), [self%n_params()])
            point = address(params, size(params))
        else
            status = self%check(error)
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
        allocate (out(self%n_outputs(), size(params, 2)))
        status = self%check(error, 'params', shape(params), [self%n_params(), size(params, 2)])
        if (status == DEMOS_OK) then
            status = demos_client_evaluate(self%handle, size(params, 2, c_size_t), address(params, size(params)), &
                out, error)
        end if
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! Whether there is a connection, and an array has the shape that it has to have.
    function client_check(self, error, name, shape_is, shape_wanted) result(status)
        class(demos_client_t), intent(in) :: self
        type(demos_error), intent(inout) :: error
        character(len=*), intent(in), optional :: name
        integer, intent(in), optional :: shape_is(:), shape_wanted(:)
        integer(c_int32_t) :: status
        status = DEMOS_OK
        if (.not. c_associated(self%handle)) then
            status = demos_report(error, DEMOS_INVALID_INPUT, 'this client has no connection: call connect() first')
        else if (present(name)) then
            if (any(shape_is /= shape_wanted)) then
                status = demos_report(error, DEMOS_INVALID_INPUT, name//' has the shape '//shown(shape_is)// &
                    ', this model takes '//shown(shape_wanted)//' (C''s [n][d] is Fortran''s (d, n))')
            end if
        end if
    end function

    pure function shown(lengths) result(text)
        integer, intent(in) :: lengths(:)
        character(len=:), allocatable :: text
        character(len=60) :: room
        write (room, '("(",*(i0,:,", "))') lengths
        text = trim(room)//')'
    end function

    function client_density(self, x, params, stride, value, error, gradient, wrt_x) result(status)
        class(demos_client_t), intent(in) :: self
        real(c_double), contiguous, intent(in) :: x(:, :)
        type(c_ptr), intent(in) :: params
        integer, intent(in) :: stride
        real(c_double), allocatable, intent(out) :: value(:)
        type(demos_error), intent(inout) :: error
        real(c_double), allocatable, intent(out), optional :: gradient(:, :)
        logical, intent(in), optional :: wrt_x
        integer(c_int32_t) :: status
        logical :: by_x
        allocate (value(size(x, 2)))
        status = self%check(error, 'x', shape(x), [self%n_observables(), size(x, 2)])
        if (status /= DEMOS_OK) return
        associate (n => size(x, 2, c_size_t), step => int(stride, c_size_t))
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

end module demos
