"""The kinds of balancing methods: what each is given at a step, and how gradients follow from what it answers."""
