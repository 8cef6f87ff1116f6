! Calls with arrays of 2^31 elements and more, none of which is looked at; large.c says what arrives.
program large
    use demos
    implicit none
    integer(c_size_t), parameter :: p = 2_c_size_t**16, k = 2_c_size_t**15, n = 2_c_size_t**31 + 5
    type(demos_client_t) :: model
    real(c_double), pointer, contiguous :: x(:, :), rows(:, :), points(:, :)
    real(c_double), allocatable :: value(:), out(:, :)
    character(len=200) :: text
    integer :: stat

    interface
        ! void *reserve(size_t bytes);
        function reserve(bytes) result(pointer) bind(c)
            import :: c_ptr, c_size_t
            integer(c_size_t), value :: bytes
            type(c_ptr) :: pointer
        end function
    end interface

    call c_f_pointer(reserve(8 * n), x, [1_c_size_t, n])
    call c_f_pointer(reserve(8 * k), rows, [1_c_size_t, k])
    call c_f_pointer(reserve(8 * p * k), points, [p, k])
    call model%connect()
    call model%log_density(rows, points, value)
    print '(i0)', size(value)
    call model%log_likelihood(x, points, value)
    print '(i0)', size(value)
    call model%log_likelihood(x, points(:, :0), value)
    print '(i0)', size(value)
    call model%evaluate(points, out)
    print '(i0)', size(out)
    call model%log_density(x, points, value, stat, text)
    print '(a)', trim(text)
end program large
