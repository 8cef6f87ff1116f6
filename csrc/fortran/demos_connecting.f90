! demos_connecting.f90: a connection to a model that is served elsewhere, and what the server says of that model.
module demos_connecting
    use demos_types
    use demos_library
    use demos_texts
    implicit none
    private
    public :: demos_connection, check_connection, check_shape

    ! What a demos_client_t is beside its calls. A copy is the same connection.
    type :: demos_connection
        type(c_ptr) :: handle = c_null_ptr   ! C's demos_client *, for the functions of demos_library
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
    end type

contains

    ! To a model by name or UUID, or to the only one that is served, for programs that `demos-hpc ticket NAME --
    ! ./program` starts.
    subroutine client_connect(self, model, stat, errmsg)
        class(demos_connection), intent(inout) :: self
        character(len=*), intent(in), optional :: model
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        call self%connect_by(demos_connect, model, stat, errmsg)
    end subroutine

    ! The same by demos_connect() or demos_mpi_connect().
    subroutine client_connect_by(self, connect, model, stat, errmsg)
        class(demos_connection), intent(inout) :: self
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
        class(demos_connection), intent(inout) :: self
        call demos_disconnect(self%handle)
        self%handle = c_null_ptr
    end subroutine

    ! d, 0 without a connection.
    function client_n_observables(self) result(d)
        class(demos_connection), intent(in) :: self
        integer :: d
        d = 0
        if (c_associated(self%handle)) d = int(demos_client_observables(self%handle))
    end function

    ! p
    function client_n_params(self) result(p)
        class(demos_connection), intent(in) :: self
        integer :: p
        p = 0
        if (c_associated(self%handle)) p = int(demos_client_params(self%handle))
    end function

    ! q
    function client_n_outputs(self) result(q)
        class(demos_connection), intent(in) :: self
        integer :: q
        q = 0
        if (c_associated(self%handle)) q = int(demos_client_outputs(self%handle))
    end function

    ! What the server says of the model now, in JSON.
    subroutine client_metadata(self, json, stat, errmsg)
        class(demos_connection), intent(in) :: self
        character(len=:), allocatable, intent(out) :: json
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        integer(c_int32_t) :: status
        type(c_ptr) :: text
        status = check_connection(self, error)
        if (status == DEMOS_OK) then
            text = demos_client_metadata(self%handle, error)
            json = demos_to_text(text)
            if (.not. c_associated(text)) status = error%status
        end if
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! The server's own parameters now; nan where there is none.
    subroutine client_defaults(self, params, stat, errmsg)
        class(demos_connection), intent(in) :: self
        real(c_double), allocatable, intent(out) :: params(:)   ! (p)
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        integer(c_int32_t) :: status
        status = check_connection(self, error)
        allocate (params(self%n_params()))
        if (status == DEMOS_OK) status = demos_client_defaults(self%handle, params, error)
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! Changes them for everybody; `changes` as in {"mass": 91.2}.
    subroutine client_set_params(self, changes, revision, stat, errmsg)
        class(demos_connection), intent(in) :: self
        character(len=*), intent(in) :: changes
        integer(c_int32_t), intent(out), optional :: revision
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        type(demos_error) :: error
        integer(c_int32_t) :: status, new
        new = 0
        status = check_connection(self, error)
        if (status == DEMOS_OK) status = demos_client_set_params(self%handle, demos_to_c(changes), new, error)
        if (present(revision)) revision = new
        call conclude(status, error, stat, errmsg)
    end subroutine

    ! Seconds that a call may take from now on.
    subroutine client_set_timeout(self, seconds)
        class(demos_connection), intent(in) :: self
        real(c_double), intent(in) :: seconds
        if (c_associated(self%handle)) call demos_client_timeout(self%handle, seconds)
    end subroutine

    function check_connection(self, error) result(status)
        class(demos_connection), intent(in) :: self
        type(demos_error), intent(inout) :: error
        integer(c_int32_t) :: status
        status = DEMOS_OK
        if (.not. c_associated(self%handle)) then
            status = demos_report(error, DEMOS_INVALID_INPUT, 'this client has no connection: call connect() first')
        end if
    end function

    ! Whether there is a connection, and an array has the shape that it has to have.
    function check_shape(self, name, is, wanted, error) result(status)
        class(demos_connection), intent(in) :: self
        character(len=*), intent(in) :: name
        integer(c_size_t), intent(in) :: is(:), wanted(:)
        type(demos_error), intent(inout) :: error
        integer(c_int32_t) :: status
        status = check_connection(self, error)
        if (status == DEMOS_OK .and. any(is /= wanted)) then
            status = demos_report(error, DEMOS_INVALID_INPUT, name//' has the shape '//trim(shown(is))// &
                ', this model takes '//trim(shown(wanted))//' (C''s [n][d] is Fortran''s (d, n))')
        end if
    end function

    function shown(lengths) result(text)
        integer(c_size_t), intent(in) :: lengths(:)
        character(len=60) :: text
        write (text, '("(",*(i0,:,", "))') lengths
        text(len_trim(text) + 1:) = ')'
    end function

end module demos_connecting
