/* What the model is: parameters and observables are those of demos_hpc/models/neutrino.py. */
#ifndef NEUTRINO_SPEC_H
#define NEUTRINO_SPEC_H

static const char SPEC[] =
    "{\"name\": \"nu_atm_c\", \"version\": \"1.0.0\","
    " \"parameters\": ["
    "{\"name\": \"s12sq\", \"default\": 0.308, \"lower\": 0, \"upper\": 1, \"description\": \"sin^2(theta12)\"},"
    "{\"name\": \"s13sq\", \"default\": 0.02215, \"lower\": 0, \"upper\": 1, \"description\": \"sin^2(theta13)\"},"
    "{\"name\": \"s23sq\", \"default\": 0.47, \"lower\": 0, \"upper\": 1, \"description\": \"sin^2(theta23)\"},"
    "{\"name\": \"delta\", \"unit\": \"rad\", \"default\": 3.7000980142279785, \"lower\": -6.283185307179586,"
    " \"upper\": 6.283185307179586, \"description\": \"CP phase, of period 2 pi\"},"
    "{\"name\": \"dm21\", \"unit\": \"eV^2\", \"default\": 7.49e-05, \"lower\": 0, \"upper\": 0.001,"
    " \"description\": \"m2^2 - m1^2\"},"
    "{\"name\": \"dm31\", \"unit\": \"eV^2\", \"default\": 0.002513, \"lower\": -0.01, \"upper\": 0.01,"
    " \"description\": \"m3^2 - m1^2; negative for the inverted ordering\"},"
    "{\"name\": \"dgamma\", \"default\": 0, \"lower\": -1, \"upper\": 1,"
    " \"description\": \"added to the spectral index of the flux, 2.7\"},"
    "{\"name\": \"R_nubar\", \"default\": 1, \"lower\": 0, \"upper\": 5,"
    " \"description\": \"factor on the flux of antineutrinos\"},"
    "{\"name\": \"R_e\", \"default\": 1, \"lower\": 0, \"upper\": 5,"
    " \"description\": \"factor on the flux of electron neutrinos and antineutrinos\"},"
    "{\"name\": \"dE\", \"default\": 0, \"lower\": -0.5, \"upper\": 0.5,"
    " \"description\": \"relative shift of the energy scale\"}],"
    " \"observables\": ["
    "{\"name\": \"E_reco\", \"unit\": \"GeV\", \"lower\": 3, \"upper\": 60, \"description\": \"reconstructed energy\"},"
    "{\"name\": \"cz_reco\", \"lower\": -1, \"upper\": 0,"
    " \"description\": \"reconstructed cosine of the zenith angle; -1 is from straight below\"}],"
    " \"description\": \"Upgoing atmospheric muon neutrinos after three-flavor oscillations in the Earth: energy and"
    " zenith angle as a detector reconstructs them. The twin in C of nu_atm.\","
    " \"license\": \"BSD-3-Clause\", \"authors\": [\"The demos-hpc developers\"],"
    " \"citation\": \"Oscillations in layers: V. Barger et al., Phys. Rev. D 22 (1980) 2718; P. B. Denton and S. J."
    " Parke, arXiv:2405.02400. Parameters: I. Esteban et al. (NuFIT 6.0), JHEP 12 (2024) 216. Flux: T. K. Gaisser,"
    " Cosmic Rays and Particle Physics (1990); D. Chirkin, hep-ph/0407078. Earth: castle wall"
    " of NuFast-Earth (PREM_Prob3).\","
    " \"resources\": {\"memory_MB\": 30},"
    " \"notes\": {\"density\": \"that of nu_atm, see its notes; log P to 1e-12\"}}";

/* As above; and the bounds, which log P is -inf outside of. */
static const double LOWER[] = {0, 0, 0, -6.283185307179586, 0, -1e-2, -1, 0, 0, -0.5};
static const double UPPER[] = {1, 1, 1, 6.283185307179586, 1e-3, 1e-2, 1, 5, 5, 0.5};

#endif
