"""What makes a frozen pass fast: laid-out products, attention, recorded calls, host memory, copies, batches by tokens."""
