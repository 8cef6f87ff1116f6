! An analysis of several ranks, each of which has drawn one block, and what they find together.
program ranks
    use demos_mpi
    use, intrinsic :: iso_c_binding, only: c_int
    implicit none
    integer, parameter :: N = 1024
    type(demos_mpi_client_t) :: model
    real(c_double), allocatable :: x(:, :)
    real(c_double) :: total
    integer(c_int) :: rank, size
    interface
        ! int rank_of(int comm); int size_of(int comm); double sum_over(int comm, double value); (ranks.c)
        function rank_of(comm) result(rank) bind(c)
            import :: c_int
            integer(c_int), value :: comm
            integer(c_int) :: rank
        end function
        function size_of(comm) result(size) bind(c)
            import :: c_int
            integer(c_int), value :: comm
            integer(c_int) :: size
        end function
        function sum_over(comm, value) result(total) bind(c)
            import :: c_double, c_int
            integer(c_int), value :: comm
            real(c_double), value :: value
            real(c_double) :: total
        end function
    end interface

    if (demos_mpi_comm_f() /= -1) error stop 'there is a communicator already'
    call model%connect()
    rank = rank_of(demos_mpi_comm_f())
    size = size_of(demos_mpi_comm_f())
    call model%sample(N, 7, [0.5_c_double, 2.0_c_double], x, first_row=int(rank * N, c_int64_t))
    call model%log_likelihood(x, [0.5_c_double, 2.0_c_double], total)
    total = sum_over(demos_mpi_comm_f(), total)
    if (rank == 0) print '(a,1x,i0,1x,es23.16)', 'together', size, total
    call model%disconnect()
    if (demos_mpi_comm_f() /= -1) error stop 'there is a communicator still'
end program ranks
