! demos_library.f90: the functions of libdemos as they are, the C prototype above each.
module demos_library
    use demos_types
    implicit none
    public

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

    ! What demos_serve() and demos_mpi_serve(), demos_connect() and demos_mpi_connect() are to demos_server and to
    ! demos_client_t.
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

end module demos_library
