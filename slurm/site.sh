# shellcheck shell=bash
# What holds at this site, for every job of demos-hpc: edit it, put it where all nodes see it, and name it by DEMOS_SITE.
# `demos-hpc submit` includes it in its batch scripts, and so do those of this folder. Include it in your shell as well.

# Where demos-hpc is installed, on a file system of all nodes. Or: module load demos-hpc
# export PATH=/software/demos-hpc/bin:$PATH

# Where servers and clients find one another: a directory for everybody, mkdir -m 1777.
# export DEMOS_REGISTRY=/shared/demos-hpc/registry

# Who may come in besides oneself, and what they may do (docs/servers.md).
# export DEMOS_ACCESS_FILE=/shared/demos-hpc/access.toml

# Where servers leave what each user has used, for accounting (demos-hpc usage): a directory for everybody, mkdir -m 1777.
# export DEMOS_USAGE_DIRECTORY=/shared/demos-hpc/usage

# The address that a server's door listens on, where the plain name of a node is not that of the fast network.
# SITE_HOST=$(hostname)-ib0

# How srun starts ranks of an MPI: pmi2 for MPICH, pmix for Open MPI.
# SITE_MPI=pmi2

# What starts servers and an analysis as one MPI world: auto takes srun; mpich and openmpi their own mpiexec.
# SITE_LAUNCHER=mpich

# What GPUs are for images that run on some: nv (NVIDIA) or rocm (AMD).
# SITE_GPUS=rocm
