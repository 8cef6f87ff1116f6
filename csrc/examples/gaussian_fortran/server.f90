! The code as a program of its own, which serves in its own process:
!
!     gfortran -O2 $(demos-hpc config --mpi --fortran) gaussian.f90 server.f90 -o gaussian \
!         $(demos-hpc config --mpi --libs)
!
! as ranks of an MPI launch, of which the server is rank 0,
!
!     mpiexec -n 1 demos-hpc serve --spec gaussian.json : -n 4 ./gaussian : -n 1 python -m demos_hpc analysis.py
!
! or as workers of a server that runs already:
!
!     demos-hpc worker --join gaussian --exec ./gaussian
!
! Where there is no MPI: `use demos`, type(demos_server), and without demos_mpi.f90 and --mpi.
program server_program
    use demos_mpi
    use gaussian, only: register
    implicit none
    type(demos_mpi_server) :: server
    call register(server)
    call server%serve()
end program server_program
