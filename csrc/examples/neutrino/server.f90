! The model as a program of its own, from Fortran: demos_model_init() of the library in C fills in the table.
!
!     gfortran -O2 $(demos-hpc config --mpi --fortran) server.f90 libneutrino.so -o neutrino \
!         $(demos-hpc config --mpi --libs)
!
! server.c says how it is started.
program neutrino
    use, intrinsic :: iso_fortran_env, only: error_unit
    use demos_mpi
    implicit none
    procedure(demos_model_init_function), bind(c, name='demos_model_init') :: init
    type(demos_model) :: model
    type(demos_error) :: error
    integer(c_int32_t) :: status
    model%size = int(c_sizeof(model), c_int32_t)
    status = init(model, demos_to_c('{}'), error)
    if (status == DEMOS_OK) status = demos_mpi_serve(model, c_null_ptr, error)
    if (status /= DEMOS_OK) then
        write (error_unit, '(4a)') 'neutrino: ', demos_to_text(demos_status_name(status)), ': ', &
            demos_to_text(error%message)
        error stop 1
    end if
end program neutrino
