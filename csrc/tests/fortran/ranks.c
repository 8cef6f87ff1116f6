/* MPI for ranks.f90, where no mpifort may be there: communicators travel as Fortran knows them. */
#include <mpi.h>

int rank_of(int comm);
int size_of(int comm);
double sum_over(int comm, double value);

int rank_of(int comm) {
    int rank = -1;
    MPI_Comm_rank(MPI_Comm_f2c(comm), &rank);
    return rank;
}

int size_of(int comm) {
    int size = -1;
    MPI_Comm_size(MPI_Comm_f2c(comm), &size);
    return size;
}

double sum_over(int comm, double value) {
    double total = 0;
    MPI_Allreduce(&value, &total, 1, MPI_DOUBLE, MPI_SUM, MPI_Comm_f2c(comm));
    return total;
}
