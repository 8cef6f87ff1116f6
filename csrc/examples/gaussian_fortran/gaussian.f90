! A code with a state: one normal column with mean mu and standard deviation sigma, the twin of
! demos_hpc.testing.Gaussian, written as codes of its age are. It keeps what it has worked out for the last sigma in
! variables of its module, so two threads must not be in it at a time; without DEMOS_THREAD_SAFE they are not: each
! process calls it by one thread, and `--workers 8` makes eight processes.
!
! plugin.f90, server.f90 and client.f90 say what can be made of it.
module gaussian
    use demos
    implicit none
    private
    public :: register

    real(c_double), parameter :: LOG_SQRT_2_PI = 0.91893853320467274178_c_double
    real(c_double) :: last_sigma = -1, log_norm = 0

contains

    ! What the code has, and what its numbers mean.
    subroutine register(server)
        class(demos_server), intent(inout) :: server
        call server%register_log_density(log_density)
        call server%register_log_density_gradient(gradient)
        call server%register_log_density_gradient_x(gradient_x)
        call server%register_sample(sample)
        call server%register_evaluate(moments)
        call server%describe('{"name": "gaussian", "version": "1.0.0", "license": "BSD-3-Clause",'// &
            ' "authors": ["The demos-hpc developers"],'// &
            ' "parameters": [{"name": "mu", "default": 0.0}, {"name": "sigma", "default": 1.0, "lower": 1e-3}],'// &
            ' "observables": ["x0"], "outputs": ["mean", "variance"]}')
    end subroutine

    subroutine prepare(sigma)
        real(c_double), intent(in) :: sigma
        if (sigma <= last_sigma .and. sigma >= last_sigma) return
        log_norm = -log(sigma) - LOG_SQRT_2_PI
        last_sigma = sigma
    end subroutine

    function log_density(x, params) result(value) bind(c)
        real(c_double), intent(in) :: x(*), params(*)
        real(c_double) :: value
        call prepare(params(2))
        value = log_norm - 0.5_c_double * ((x(1) - params(1)) / params(2))**2
    end function

    ! by mu and sigma
    function gradient(x, params, slope) result(value) bind(c)
        real(c_double), intent(in) :: x(*), params(*)
        real(c_double), intent(out) :: slope(*)
        real(c_double) :: value, z
        z = (x(1) - params(1)) / params(2)
        slope(1) = z / params(2)
        slope(2) = (z * z - 1) / params(2)
        value = log_density(x, params)
    end function

    ! by x
    function gradient_x(x, params, slope) result(value) bind(c)
        real(c_double), intent(in) :: x(*), params(*)
        real(c_double), intent(out) :: slope(*)
        real(c_double) :: value
        slope(1) = (params(1) - x(1)) / params(2)**2
        value = log_density(x, params)
    end function

    ! Its randomness is the stream of the row's block: the same numbers for any number of workers, and in every language.
    subroutine sample(x, params) bind(c)
        real(c_double), intent(out) :: x(*)
        real(c_double), intent(in) :: params(*)
        x(1) = params(1) + params(2) * demos_normal()
    end subroutine

    subroutine moments(out, params) bind(c)
        real(c_double), intent(out) :: out(*)
        real(c_double), intent(in) :: params(*)
        out(1) = params(1)
        out(2) = params(2)**2
    end subroutine

end module gaussian
