/* python.exe as the Windows installer's is: Py_Main and nothing else. The libraries that it stands on come from PyPI (tree.py). */
#include <wchar.h>

__declspec(dllimport) int Py_Main(int argc, wchar_t **argv);

int wmain(int argc, wchar_t **argv) { return Py_Main(argc, argv); }
