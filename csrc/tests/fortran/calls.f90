! Calls a Gaussian in every way, and prints what comes of it: a name, and numbers bit by bit, in C's order.
program calls
    use demos_mpi
    implicit none
    integer, parameter :: N = 1500
    real(c_double), parameter :: POINT(2) = [0.5_c_double, 2.0_c_double]
    type(demos_mpi_client_t) :: model
    type(demos_client_t) :: none
    real(c_double), allocatable :: x(:, :), value(:), gradient(:, :), slope(:), out(:), outs(:, :), wide(:, :)
    real(c_double) :: rows(2, N), points(2, 3), total
    character(len=:), allocatable :: json
    character(len=400) :: text
    integer(c_int32_t) :: revision
    integer :: i, stat

    call none%log_density(reshape([1.0_c_double], [1, 1]), value=value, stat=stat, errmsg=text)
    call tell('unconnected')

    text = 'as it was'
    call model%connect('gaussian', stat, text)
    call tell('connected')
    call model%set_timeout(60.0_c_double)
    print '(a,3(1x,i0))', 'shape', model%n_observables(), model%n_params(), model%n_outputs()
    call model%metadata(json)
    print '(2a)', 'metadata ', json

    call model%sample(N, 7, POINT, x)
    call show('sample', x)
    call model%sample(3, seed=not(0_c_int64_t), params=POINT, x=wide, first_row=1024_c_int64_t)
    call show('sample_long', wide)

    rows(1, :) = [(0.001_c_double * i, i=1, N)]
    rows(2, :) = [(1 + 0.001_c_double * i, i=1, N)]
    call model%log_density(x, POINT, value)
    call show('log_density', reshape(value, [1, size(value)]))
    call model%log_density(x, rows, value)
    call show('log_density_rows', reshape(value, [1, size(value)]))
    call model%log_density(x(:, N:1:-2), value=value)   ! in pieces in memory
    call show('log_density_backwards', reshape(value, [1, size(value)]))
    call model%log_density_gradient(x, POINT, value, gradient)
    call show('gradient', gradient)
    call model%log_density_gradient(x, rows, value, gradient, wrt_x=.true.)
    call show('gradient_x_rows', gradient)
    call model%log_density_gradient(x, value=value, gradient=gradient, wrt_x=.true.)
    call show('gradient_x', gradient)

    points = reshape([0.0_c_double, 1.0_c_double, 0.5_c_double, 2.0_c_double, 1.0_c_double, -1.0_c_double], [2, 3])
    call model%log_likelihood(x, points(:, :2), value, gradient)
    call show('log_likelihoods', reshape(value, [1, 2]))
    call show('log_likelihoods_gradient', gradient)
    call model%log_likelihood(x, points, value)   ! one is out of bounds
    call show('log_likelihoods_bounds', reshape(value, [1, 3]))
    call model%log_likelihood(x, POINT, total, slope)
    call show('log_likelihood', reshape([total, slope], [1, 3]))
    call model%log_likelihood(x, value=total)
    call show('log_likelihood_default', reshape([total], [1, 1]))

    call model%evaluate(points(:, :2), outs)
    call show('evaluate', outs)
    call model%evaluate(out=out)
    call show('evaluate_default', reshape(out, [1, 2]))

    ! No points are not the server's own one.
    call model%log_density(x(:, :0), rows(:, :0), value)
    print '(a,*(1x,i0))', 'no_rows', shape(value)
    call model%log_density_gradient(x(:, :0), POINT, value, gradient)
    print '(a,*(1x,i0))', 'no_gradients', shape(value), shape(gradient)
    call model%log_likelihood(x, points(:, :0), value, gradient)
    print '(a,*(1x,i0))', 'no_sums', shape(value), shape(gradient)
    call model%log_likelihood(x(:, :0), points(:, :2), value, gradient)
    print '(a,*(1x,g0))', 'sums_of_nothing', value, gradient
    call model%evaluate(points(:, :0), outs)
    print '(a,*(1x,i0))', 'no_outputs', shape(outs)
    call model%sample(0, 7, POINT, wide)
    print '(a,*(1x,i0))', 'no_draws', shape(wide)

    call model%set_params('{"mu": 0.25}', revision)
    call model%defaults(out)
    call show('defaults', reshape(out, [1, 2]))
    print '(a,1x,i0)', 'revision', revision

    call model%set_params('{"mo": 0.25}', stat=stat, errmsg=text)
    call tell('unknown')
    call model%log_density(reshape(x(:, :4), [2, 2]), POINT, value, stat, text)
    call tell('columns')
    call model%log_density(x, rows(:, :4), value, stat, text)
    call tell('rows')
    call model%log_likelihood(x, points(:1, :), value, stat=stat, errmsg=text)
    call tell('points')
    call model%evaluate(POINT(:1), out, stat, text)
    call tell('point')
    call model%sample(-1, 7, POINT, x, stat=stat)
    print '(a,1x,i0)', 'negative', stat

    call model%disconnect()
    call model%disconnect()
    call model%evaluate(POINT, out)   ! without stat
    print '(a)', 'not reached'

contains

    subroutine tell(name)
        character(len=*), intent(in) :: name
        print '(a,1x,i0,1x,a)', name, stat, trim(text)
    end subroutine

    subroutine show(name, array)
        character(len=*), intent(in) :: name
        real(c_double), intent(in) :: array(:, :)
        integer :: i, j
        print '(a,2(1x,i0),*(1x,z16.16))', name, size(array, 2), size(array, 1), &
            ((transfer(array(i, j), 0_c_int64_t), i=1, size(array, 1)), j=1, size(array, 2))
    end subroutine

end program calls
