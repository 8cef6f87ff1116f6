! demos.f90: demos.h for Fortran 2008; whatever is not said here is said there, part by part.
!
! Module files differ from compiler to compiler, and from version to version. So sources are what is installed, and your
! compiler compiles them, in front of your own ones:
!
!     gfortran -O2 -shared -fPIC $(demos-hpc config --fortran) my_model.f90 -o libmy_model.so $(demos-hpc config --libs)
!
! For you there is one module, this one. It has the numbers, types and functions of demos.h under their names there
! (demos_types.f90, demos_library.f90: the C prototype stands above each), and what is made of them for Fortran:
!
!     type(demos_server)     a code of scalar functions, registered, described, and served (demos_serving.f90)
!     type(demos_client_t)   a model that is served elsewhere (demos_connecting.f90, demos_calling.f90)
!     demos_report()         status and text of an error, in place of C's demos_fail() (demos_texts.f90)
!     demos_to_text(), demos_to_c(), demos_unsigned()
!
! Arrays: C's [n][d] is Fortran's (d, n), the same bytes. A row is a column here, x(:, i), and lies in one piece.
!
! Errors: as with Fortran's own statements, `stat` becomes 0 or a status, and `errmsg` the text; where there is no
! `stat`, the text goes to the unit of errors, and the program ends by `error stop`.
!
! Names of iso_c_binding that one needs to use this module come with it: c_double, c_ptr, c_char and so on. What is an
! "integer" here is what it is in your sources, of 8 bytes with -fdefault-integer-8.
module demos
    use demos_types
    use demos_library
    use demos_texts, only: demos_to_text, demos_to_c, demos_unsigned, demos_report
    use demos_serving, only: demos_server
    use demos_calling, only: demos_client_t
    implicit none
    public
end module demos
