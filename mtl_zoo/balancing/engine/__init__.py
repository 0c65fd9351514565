"""From one forward pass to the gradients of every task, and what is made of them. TensorFlow only."""
