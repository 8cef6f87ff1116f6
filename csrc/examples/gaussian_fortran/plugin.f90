! The code as a plug-in, a library that Python workers load.
!
!     gfortran -O2 -shared -fPIC $(demos-hpc config --fortran) gaussian.f90 plugin.f90 -o libgaussian.so \
!         $(demos-hpc config --libs)
!     demos-hpc check ./libgaussian.so
!     demos-hpc serve ./libgaussian.so --workers 2
module plugin
    use demos
    use gaussian, only: register
    implicit none
    private
    public :: init

    ! The model keeps its address.
    type(demos_server), save, target :: server

contains

    function init(model, config, error) result(status) bind(c, name="demos_model_init")
        type(demos_model), intent(inout) :: model
        character(kind=c_char), intent(in) :: config(*)
        type(demos_error), intent(inout) :: error
        integer(c_int32_t) :: status
        if (demos_to_text(config) /= '{}') then
            status = demos_report(error, DEMOS_INVALID_INPUT, 'the model has no settings, and these are '// &
                demos_to_text(config)//': leave them out')
            return
        end if
        call register(server)
        status = server%fill(model, error)
    end function

end module plugin
