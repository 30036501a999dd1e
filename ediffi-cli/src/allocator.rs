//! jemalloc, set up for networks: their temporary tensors are large, come and go thousands of times a second, and are the same in
//! every step.
#![allow(unsafe_code, reason = "jemalloc is configured by a symbol of a fixed name")]

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What was freed is kept for ten seconds, long enough for the next step, and then lent to the kernel, which takes it where memory is
/// short: given back at once, it would have to be zeroed again page by page. That holds for large tensors too, which jemalloc would else
/// give back. The environment variable `MALLOC_CONF` overrules this. A pointer to a C string by the name that jemalloc has where its
/// functions have no prefix; elsewhere (macOS) it is not read.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: &[u8; 60] = b"dirty_decay_ms:10000,muzzy_decay_ms:-1,oversize_threshold:0\0";
