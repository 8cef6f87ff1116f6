! A model that fills in the table itself: x uniform in (0, a), in blocks of rows and without a state. Rows above the
! setting "fail" and a scale of 13 are errors.
module rows
    use demos
    implicit none
    private
    public :: init

    character(kind=c_char), save, target :: spec(200) = c_null_char
    real(c_double), save :: fail = huge(1.0_c_double)

contains

    function log_density(user, n, d, p, x, params, params_stride, value, error) result(status) bind(c)
        type(c_ptr), value :: user
        integer(c_size_t), value :: n, d, p
        real(c_double), intent(in) :: x(d, n), params(*)
        integer(c_size_t), value :: params_stride
        real(c_double), intent(inout) :: value(n)
        type(demos_error), intent(inout) :: error
        integer(c_int32_t) :: status
        character(len=60) :: text
        integer(c_size_t) :: i
        status = DEMOS_OK
        if (c_associated(user) .or. d < 1 .or. p < 1) status = DEMOS_INTERNAL
        do i = 1, n
            associate (a => params(1 + (i - 1) * params_stride))
                if (x(1, i) > fail) then
                    write (text, '(a,f0.1)') 'there is no table for x = ', x(1, i)
                    status = demos_report(error, DEMOS_MODEL_FAILED, text)
                    return
                end if
                if (a > 12.5_c_double .and. a < 13.5_c_double) then
                    status = demos_report(error, DEMOS_INVALID_INPUT, 'a is 13'//repeat(', once more', 200))
                    return
                end if
                value(i) = -d * log(a) + 0 * sum(x(:, i))   ! nan where a number is
                if (any(x(:, i) < 0 .or. x(:, i) > a)) value(i) = log(0 * a)
            end associate
        end do
    end function

    function sample(user, n, d, p, params, stream, x, error) result(status) bind(c)
        type(c_ptr), value :: user
        integer(c_size_t), value :: n, d, p
        real(c_double), intent(in) :: params(p)
        type(demos_stream), intent(inout) :: stream
        real(c_double), intent(inout) :: x(d, n)
        type(demos_error), intent(inout) :: error
        integer(c_int32_t) :: status
        integer(c_size_t) :: i, j
        status = DEMOS_OK
        if (c_associated(user)) status = demos_report(error, DEMOS_INTERNAL, 'there is a user')
        do i = 1, n
            do j = 1, d
                x(j, i) = params(1) * demos_stream_uniform(stream)
            end do
        end do
    end function

    function init(model, config, error) result(status) bind(c, name="demos_model_init")
        type(demos_model), intent(inout) :: model
        character(kind=c_char), intent(in) :: config(*)
        type(demos_error), intent(inout) :: error
        integer(c_int32_t) :: status
        character(kind=c_char) :: name(20)
        name = c_null_char
        name(:4) = demos_to_c('box')
        status = demos_config_number(config, 'fail'//c_null_char, fail, error)
        if (status == DEMOS_OK) then
            status = demos_config_text(config, 'name'//c_null_char, name, c_sizeof(name), error)
        end if
        if (status /= DEMOS_OK) return
        associate (json => demos_to_c('{"name": "'//demos_to_text(name)//'", "parameters": [{"name": "a",'// &
                ' "lower": 0.5, "upper": 20.0}],'// &
                ' "observables": [{"name": "x", "lower": 0.0}, {"name": "y", "lower": 0.0}]}'))
            spec(:size(json)) = json
        end associate
        model = demos_model(size=int(c_sizeof(model), c_int32_t), flags=DEMOS_THREAD_SAFE, spec=c_loc(spec), &
            log_density=c_funloc(log_density), sample=c_funloc(sample))
    end function

end module rows
