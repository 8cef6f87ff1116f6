/* Loops over many tracks or nodes at a time, for whatever vectors the processor has. */
#ifndef NEUTRINO_WIDE_H
#define NEUTRINO_WIDE_H

/* Makes a function once for each kind of vectors; the dynamic linker takes the best one. All of them compute the same
 * bits: elements are independent of each other, additions keep their order, and nothing is contracted. Sanitizers
 * instrument what runs before they are ready to be called, so with them there is one version. For static functions:
 * what chooses a version is exported otherwise. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NEUTRINO_ONE_VERSION
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define NEUTRINO_ONE_VERSION
#endif
#endif
#if !defined(__x86_64__) || !defined(__GLIBC__) || defined(NEUTRINO_ONE_VERSION)
#define NEUTRINO_WIDE
#else
#define NEUTRINO_WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#endif

#endif
