/*
 * The functions with variable arguments. Rust cannot define such functions, so its exported symbols jump here; this
 * side takes the arguments apart and calls back into Rust (variadic.rs) with plain arrays.
 */
#include <stdarg.h>
#include <stdint.h>

#if defined(_WIN32)
#define HIDDEN
#else
#define HIDDEN __attribute__((visibility("hidden")))
#endif

/* More properties than there are names for. */
enum { MOST = 128 };

enum { TYPE_INTEGER = 1, TYPE_STRING = 2, TYPE_BOOL = 3, TYPE_HANDLE = 4, TYPE_INT64 = 5, TYPE_BLOB = 6 };

/* Both are mirrored in variadic.rs. */
struct place {
   int id;
   void *first;
   void *second; /* a blob's bytes, after its size */
};
struct value {
   int id;
   int type;
   int64_t number; /* a blob's size, too */
   const void *pointer;
};

HIDDEN int vmtask_standin_type(int id);
HIDDEN uint64_t vmtask_standin_get(int handle, const struct place *places, int count);
HIDDEN uint64_t vmtask_standin_wait(int job, const struct place *places, int count);
HIDDEN uint64_t vmtask_standin_nth(int job, int index, const struct place *places, int count);
HIDDEN uint64_t vmtask_standin_alloc(int host, int *result, const struct value *values, int count);

/* Pointers up to the id 0; a count of -1 if there are too many. */
static int
collect(struct place *places, int id, va_list arguments)
{
   int count = 0;
   for (; id != 0; id = va_arg(arguments, int)) {
      if (count == MOST) {
         return -1;
      }
      places[count].id = id;
      places[count].first = va_arg(arguments, void *);
      places[count].second = vmtask_standin_type(id) == TYPE_BLOB ? va_arg(arguments, void *) : 0;
      count++;
   }
   return count;
}

HIDDEN uint64_t
vmtask_standin_c_get_properties(int handle, int first, ...)
{
   struct place places[MOST];
   va_list arguments;
   int count;
   va_start(arguments, first);
   count = collect(places, first, arguments);
   va_end(arguments);
   return vmtask_standin_get(handle, places, count);
}

HIDDEN uint64_t
vmtask_standin_c_job_wait(int job, int first, ...)
{
   struct place places[MOST];
   va_list arguments;
   int count;
   va_start(arguments, first);
   count = collect(places, first, arguments);
   va_end(arguments);
   return vmtask_standin_wait(job, places, count);
}

HIDDEN uint64_t
vmtask_standin_c_job_get_nth_properties(int job, int index, int first, ...)
{
   struct place places[MOST];
   va_list arguments;
   int count;
   va_start(arguments, first);
   count = collect(places, first, arguments);
   va_end(arguments);
   return vmtask_standin_nth(job, index, places, count);
}

/* Values, not pointers. What follows an id without a known type cannot be taken apart: it is the last. */
HIDDEN uint64_t
vmtask_standin_c_alloc_property_list(int host, int *result, int first, ...)
{
   struct value values[MOST];
   va_list arguments;
   int count = 0;
   int id;
   va_start(arguments, first);
   for (id = first; id != 0; id = va_arg(arguments, int)) {
      struct value *value = &values[count];
      if (count == MOST) {
         count = -1;
         break;
      }
      count++;
      value->id = id;
      value->type = vmtask_standin_type(id);
      value->number = 0;
      value->pointer = 0;
      switch (value->type) {
      case TYPE_INTEGER:
      case TYPE_BOOL:
      case TYPE_HANDLE:
         value->number = va_arg(arguments, int);
         continue;
      case TYPE_INT64:
         value->number = va_arg(arguments, int64_t);
         continue;
      case TYPE_STRING:
         value->pointer = va_arg(arguments, const char *);
         continue;
      case TYPE_BLOB:
         value->number = va_arg(arguments, int);
         value->pointer = va_arg(arguments, const void *);
         continue;
      }
      break;
   }
   va_end(arguments);
   return vmtask_standin_alloc(host, result, values, count);
}
