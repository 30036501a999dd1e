//! jemalloc, set up for networks: their temporary tensors are large, come and go thousands of times a second, and are the same in
//! every step.
#![allow(unsafe_code, reason = "jemalloc is configured by a symbol of a fixed name")]

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What was freed is kept for the next step: given back to the kernel, it would have to be zeroed again page by page. So a program
/// takes as much memory as it once needed until it ends; the environment variable `MALLOC_CONF` overrules this. A pointer to a C string
/// by the name that jemalloc has where its functions have no prefix; elsewhere (macOS) it is not read.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: &[u8; 36] = b"dirty_decay_ms:-1,muzzy_decay_ms:-1\0";
