/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The original filled its XFSM table here. Ours has the rows as its initial data, so nothing is left to
 * do. */
#include <stdio.h>

int main(void)
{
	puts("init_maps: nothing to do, tokenbucket.o limits as soon as it is attached");
	return 0;
}
