/* The least that a Cortex-M needs to run a program of newlib under semihosting, in an emulator:
   a table of vectors, and a start that calls main and says what it returned. */
#include <stdint.h>
#include <stdlib.h>

extern uint32_t stack_top, __bss_start__, __bss_end__;
extern void initialise_monitor_handles(void);
extern int main(void);

void _init(void);
void _fini(void);
void _init(void) {}
void _fini(void) {}

void reset(void);
void reset(void)
{
    for (uint32_t *word = &__bss_start__; word < &__bss_end__; word++) *word = 0;
    initialise_monitor_handles();
    exit(main());
}

static void stop(void)
{
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, (const void *)reset, (const void *)stop, (const void *)stop,
};
