/* Rust's standard library asks this DLL of Windows for random numbers. Wine 8 has no such DLL, and programs end without
 * a word; an older function that it has gives the same numbers. Only for tests: it goes into their Wine's system32. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG size); /* RtlGenRandom */

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size)
{
    while (size > 0) {
        ULONG part = size > 1 << 30 ? 1 << 30 : (ULONG)size;
        if (!SystemFunction036(data, part))
            return FALSE;
        data += part;
        size -= part;
    }
    return TRUE;
}
