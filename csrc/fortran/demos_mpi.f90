! demos_mpi.f90: demos_mpi.h for Fortran 2008: programs that are ranks of an MPI launch. It is a module of its own since
! it needs libdemos_mpi; of MPI's own modules and of mpifort it needs nothing.
!
!     gfortran -O2 $(demos-hpc config --mpi --fortran) my_model.f90 -o my_model $(demos-hpc config --mpi --libs)
!
! A program that says type(demos_mpi_server) in place of type(demos_server), and type(demos_mpi_client_t) in place of
! type(demos_client_t), is a rank of a launch where there is one, and does the same as before where there is none.
module demos_mpi
    use, intrinsic :: iso_c_binding, only: c_int
    use demos
    implicit none
    public

    interface
        ! int32_t demos_mpi_serve(const demos_model *model, const char *spec, demos_error *error);
        function demos_mpi_serve(model, spec, error) result(status) bind(c)
            import :: c_int32_t, c_ptr, demos_error, demos_model
            type(demos_model), intent(in) :: model
            type(c_ptr), value :: spec
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int32_t demos_mpi_connect(const char *model, demos_client **client, demos_error *error);
        function demos_mpi_connect(model, client, error) result(status) bind(c)
            import :: c_int32_t, c_ptr, demos_error
            type(c_ptr), value :: model
            type(c_ptr), intent(inout) :: client
            type(demos_error), intent(inout) :: error
            integer(c_int32_t) :: status
        end function

        ! int demos_mpi_comm_f(void);
        ! The ranks of an analysis while it is connected: as MPI_Allreduce() and the like take it, in place of
        ! MPI_COMM_WORLD; for mpi_f08 it is the member mpi_val of an MPI_Comm. Otherwise -1.
        function demos_mpi_comm_f() result(comm) bind(c)
            import :: c_int
            integer(c_int) :: comm
        end function
    end interface

    type, extends(demos_server) :: demos_mpi_server
    contains
        procedure :: serve => server_serve_in_launch
    end type

    type, extends(demos_client_t) :: demos_mpi_client_t
    contains
        procedure :: connect => client_connect_in_launch
    end type

contains

    ! Serves until the service is over; begins and ends MPI unless that was done.
    subroutine server_serve_in_launch(self, stat, errmsg)
        class(demos_mpi_server), target, intent(inout) :: self
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        call self%serve_by(demos_mpi_serve, stat, errmsg)
    end subroutine

    ! All ranks of an analysis call it, and end by disconnect().
    subroutine client_connect_in_launch(self, model, stat, errmsg)
        class(demos_mpi_client_t), intent(inout) :: self
        character(len=*), intent(in), optional :: model
        integer, intent(out), optional :: stat
        character(len=*), intent(inout), optional :: errmsg
        call self%connect_by(demos_mpi_connect, model, stat, errmsg)
    end subroutine

end module demos_mpi
