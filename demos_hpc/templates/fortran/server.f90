! The model as a program of its own: a rank of an MPI launch, or a worker that joins a server.
program NAME_program
    use demos_mpi
    implicit none
    procedure(demos_density_function), &
        bind(c, name="NAME_log_density") :: log_density
    procedure(demos_sampler_function), &
        bind(c, name="NAME_sample") :: sample
    type(demos_mpi_server) :: server
    call server%register_log_density(log_density)
    call server%register_sample(sample)
    call server%serve()
end program
