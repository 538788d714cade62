"""InternImage, and the kernels of its DCNv3 operator."""
