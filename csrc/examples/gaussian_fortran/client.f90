! A program that calls a model, whatever language that is written in:
!
!     gfortran -O2 $(demos-hpc config --mpi --fortran) client.f90 -o client $(demos-hpc config --mpi --libs)
!     demos-hpc ticket gaussian -- ./client
!     mpiexec -n 3 demos-hpc serve ./libgaussian.so : -n 1 ./client
program client_program
    use demos_mpi
    implicit none
    integer, parameter :: N = 10000
    type(demos_mpi_client_t) :: model
    real(c_double), allocatable :: x(:, :), value(:), gradient(:, :), sums(:), slope(:)
    real(c_double) :: points(2, 3), total
    character(len=200) :: text
    integer :: stat

    call model%connect()
    print '(3(a,i0))', 'd = ', model%n_observables(), ', p = ', model%n_params(), ', q = ', model%n_outputs()

    ! x is (d, n): x(:, i) is one row.
    call model%sample(N, seed=7, params=[0.5_c_double, 2.0_c_double], x=x)
    print '(a,f9.6)', 'mean ', sum(x) / N

    ! One point for all rows; without params, the server's own.
    call model%log_density(x, [0.5_c_double, 2.0_c_double], value)
    call model%log_density_gradient(x, value=value, gradient=gradient)
    print '(a,2(1x,i0))', 'shape of the gradient', shape(gradient)

    ! Three points (p, k) at once.
    points(1, :) = [0.0_c_double, 0.5_c_double, 1.0_c_double]
    points(2, :) = 2
    call model%log_likelihood(x, points, sums)
    print '(a,3(1x,f12.3))', 'log L', sums
    call model%log_likelihood(x, points(:, 2), total, slope)
    print '(a,f12.3,2(1x,f8.3))', 'log L and its gradient ', total, slope

    ! With `stat`, an error is told; without, it would end the program.
    call model%log_density(x, [0.5_c_double], value, stat=stat, errmsg=text)
    if (stat == DEMOS_INVALID_INPUT) print '(2a)', 'told: ', trim(text)

    call model%disconnect()
end program client_program
