/* The complex functions of the universal C runtime that wine 8 declares but does not have; numpy calls them when it is imported.
 *
 * Microsoft's _Dcomplex and _Fcomplex are plain pairs, and its long double is a double: so here are pairs only, and what ends in l
 * is what ends in nothing. They are exported under their C names by the .def file that the build writes.
 */
#include <complex.h>

typedef struct { double re, im; } pair;
typedef struct { float re, im; } pairf;

static double complex z(pair p) { return p.re + p.im * I; }
static pair p(double complex z) { return (pair){creal(z), cimag(z)}; }

#define TO_COMPLEX(name) \
    pair shim_##name(pair x) { return p(name(z(x))); } \
    pair shim_##name##l(pair x) { return p(name(z(x))); } \
    pairf shim_##name##f(pairf x) { pair r = p(name(x.re + x.im * I)); return (pairf){r.re, r.im}; }
#define TO_REAL(name) \
    double shim_##name(pair x) { return name(z(x)); } \
    double shim_##name##l(pair x) { return name(z(x)); } \
    float shim_##name##f(pairf x) { return name(x.re + x.im * I); }

TO_REAL(creal) TO_REAL(cimag) TO_REAL(cabs) TO_REAL(carg)
TO_COMPLEX(cexp) TO_COMPLEX(clog) TO_COMPLEX(csqrt)
TO_COMPLEX(csin) TO_COMPLEX(ccos) TO_COMPLEX(ctan)
TO_COMPLEX(csinh) TO_COMPLEX(ccosh) TO_COMPLEX(ctanh)

pair shim_cpow(pair x, pair y) { return p(cpow(z(x), z(y))); }
pair shim_cpowl(pair x, pair y) { return p(cpow(z(x), z(y))); }
pairf shim_cpowf(pairf x, pairf y) {
    pair r = p(cpow(x.re + x.im * I, y.re + y.im * I));
    return (pairf){r.re, r.im};
}
