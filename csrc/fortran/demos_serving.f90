! demos_serving.f90: demos_server, a code of scalar functions that is served.
module demos_serving
    use demos_types
    use demos_library
    use demos_texts
    implicit none
    private
    public :: demos_server

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

contains

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

end module demos_serving
