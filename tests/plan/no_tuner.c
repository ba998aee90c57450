/* A library that is no tuner plug-in. */
int no_tuner(void);
int no_tuner(void) { return 0; }
