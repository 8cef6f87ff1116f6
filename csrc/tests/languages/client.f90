! Calls a model and writes doubles into a file; client.py says which.
program client_program
    use demos_mpi
    implicit none
    integer, parameter :: N = 2500, SEED = 7
    type(demos_mpi_client_t) :: model
    character(len=1000) :: word
    real(c_double) :: number
    integer :: unit, i

    call get_command_argument(1, word)
    open (newunit=unit, file=trim(word), access='stream', form='unformatted', status='replace', action='write')
    call model%connect()
    if (command_argument_count() == 1) call call_all()
    do i = 2, command_argument_count()
        call get_command_argument(i, word)
        read (word, *) number
        call call_with(number)
    end do
    call model%disconnect()
    close (unit)

contains

    subroutine call_all()
        real(c_double), parameter :: POINT(2) = [0.5_c_double, 2.0_c_double]
        real(c_double), allocatable :: x(:, :), some(:, :), value(:), gradient(:, :), out(:, :), own(:)
        real(c_double) :: rows(2, N), points(2, 2)
        integer :: j, stat
        rows(1, :) = [(0.001_c_double * j, j=0, N - 1)]
        rows(2, :) = [(1 + 0.001_c_double * j, j=0, N - 1)]
        points = reshape([0.5_c_double, 2.0_c_double, -0.25_c_double, 1.5_c_double], [2, 2])
        write (unit) real([model%n_observables(), model%n_params(), model%n_outputs()], c_double)
        call model%sample(N, SEED, POINT, x)
        write (unit) x
        call model%sample(3, SEED, POINT, some, first_row=1024_c_int64_t)
        write (unit) some
        call model%log_density(x, POINT, value)
        write (unit) value
        call model%log_density(x, rows, value)
        write (unit) value
        call model%log_density_gradient(x, rows, value, gradient)
        write (unit) value, gradient
        call model%log_density_gradient(x, value=value, gradient=gradient, wrt_x=.true.)
        write (unit) value, gradient
        call model%log_likelihood(x, points, value, gradient)
        write (unit) value, gradient
        call model%evaluate(points, out)
        write (unit) out
        call model%defaults(own)
        write (unit) own
        call model%sample(1, SEED, [0.0_c_double, -1.0_c_double], some, stat=stat)
        write (unit) real(stat, c_double)
    end subroutine

    subroutine call_with(number)
        real(c_double), intent(in) :: number
        real(c_double), allocatable :: value(:)
        integer :: stat
        call model%log_density(reshape([number], [1, 1]), [1.0_c_double], value, stat)
        if (stat /= DEMOS_OK) value = 0
        write (unit) real(stat, c_double), value
    end subroutine

end program client_program
