! The model: a Gaussian, to be replaced. x is one row, params one point, as NAME.json names them.
function NAME_log_density(x, params) result(value) &
    bind(c, name="NAME_log_density")
    use iso_c_binding, only: c_double
    implicit none
    real(c_double), intent(in) :: x(*), params(*)
    real(c_double) :: value, z
    z = (x(1) - params(1)) / params(2)
    value = -0.5_c_double * z * z - log(params(2)) - 0.91893853320467274178_c_double   ! log(2 pi) / 2
end function

subroutine NAME_sample(x, params) &
    bind(c, name="NAME_sample")
    use iso_c_binding, only: c_double
    implicit none
    interface
        ! A standard normal number, of the stream that belongs to the row (libdemos).
        function demos_normal() result(z) bind(c)
            import :: c_double
            real(c_double) :: z
        end function
    end interface
    real(c_double), intent(out) :: x(*)
    real(c_double), intent(in) :: params(*)
    x(1) = params(1) + params(2) * demos_normal()
end subroutine
