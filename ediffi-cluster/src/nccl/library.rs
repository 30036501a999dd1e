//! The functions of `libnccl.so.2`, loaded when they are asked for.
//!
//! Why this is sound. The C interface of NCCL 2 has not changed its names, arguments and numbers since version 2.4: they are declared here
//! as they are in `nccl.h`, and a library of another major version is refused. The pointers stay valid because the library is never
//! unloaded. A communicator is a pointer that only the functions of the library look into; it is made once, used by one thread, and
//! destroyed once, by the type that owns it.
#![allow(unsafe_code, reason = "foreign calls of a library that is loaded while the program runs")]

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};

use crate::{Error, Result};

/// `NCCL_UNIQUE_ID_BYTES`.
pub(crate) const ID_BYTES: usize = 128;
/// `ncclSuccess`.
const SUCCESS: c_int = 0;
/// `ncclFloat32`.
const FLOAT32: c_int = 7;
/// `ncclFloat64`.
const FLOAT64: c_int = 8;
/// `ncclSum`.
const SUM: c_int = 0;

/// `ncclUniqueId`: bytes by which the processes of a communicator find each other.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct UniqueId(pub(crate) [u8; ID_BYTES]);

/// `ncclComm_t`.
type Handle = *mut c_void;
/// `cudaStream_t`. Null is the stream on which libtorch computes unless it is told otherwise, and `tch` has no way to.
type Stream = *mut c_void;

type GetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;
type GetErrorString = unsafe extern "C" fn(c_int) -> *const c_char;
type GetUniqueId = unsafe extern "C" fn(*mut UniqueId) -> c_int;
type CommInitRank = unsafe extern "C" fn(*mut Handle, c_int, UniqueId, c_int) -> c_int;
type AllReduce = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Handle, Stream) -> c_int;
type Broadcast = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Handle, Stream) -> c_int;
type CommGetAsyncError = unsafe extern "C" fn(Handle, *mut c_int) -> c_int;
type CommDestroy = unsafe extern "C" fn(Handle) -> c_int;

/// The functions of NCCL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Library {
    get_error_string: GetErrorString,
    get_unique_id: GetUniqueId,
    comm_init_rank: CommInitRank,
    all_reduce: AllReduce,
    broadcast: Broadcast,
    comm_get_async_error: CommGetAsyncError,
    comm_destroy: CommDestroy,
}

impl Library {
    /// Loads the library at `path`, or of that name.
    ///
    /// # Errors
    /// [`Error::Library`] for one that is not there, lacks a function, or is of another major version than 2.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let failed = |reason: String| Error::Library { path: PathBuf::from(path), reason };
        // SAFETY: the initializers of NCCL only read its environment. The library stays loaded.
        let library = unsafe { libloading::Library::new(path) }.map_err(|error| failed(in_words(&error)))?;
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        macro_rules! function {
            ($name:literal, $type:ty) => {
                // SAFETY: the type is that of the declaration in `nccl.h`.
                *unsafe { library.get::<$type>($name) }.map_err(|error| failed(in_words(&error)))?
            };
        }
        let get_version = function!(b"ncclGetVersion\0", GetVersion);
        let this = Self {
            get_error_string: function!(b"ncclGetErrorString\0", GetErrorString),
            get_unique_id: function!(b"ncclGetUniqueId\0", GetUniqueId),
            comm_init_rank: function!(b"ncclCommInitRank\0", CommInitRank),
            all_reduce: function!(b"ncclAllReduce\0", AllReduce),
            broadcast: function!(b"ncclBroadcast\0", Broadcast),
            comm_get_async_error: function!(b"ncclCommGetAsyncError\0", CommGetAsyncError),
            comm_destroy: function!(b"ncclCommDestroy\0", CommDestroy),
        };
        let mut version = 0;
        // SAFETY: the pointer is that of a number which lives on.
        this.check("ncclGetVersion", unsafe { get_version(&raw mut version) })?;
        // 2.4.8 is 2408, and 2.9.6 is 20906.
        let major = if version >= 10_000 { version / 10_000 } else { version / 1000 };
        if major != 2 {
            return Err(failed(format!("it is of version {version}, and not NCCL 2")));
        }
        tracing::info!(file = %path.display(), version, "NCCL is loaded");
        Ok(this)
    }

    /// An id for a new communicator. One process makes it, for all.
    pub(crate) fn unique_id(&self) -> Result<UniqueId> {
        let mut id = UniqueId([0; ID_BYTES]);
        // SAFETY: the pointer is that of an id which lives on.
        self.check("ncclGetUniqueId", unsafe { (self.get_unique_id)(&raw mut id) })?;
        Ok(id)
    }

    fn check(&self, function: &'static str, result: c_int) -> Result<()> {
        if result == SUCCESS {
            return Ok(());
        }
        // SAFETY: takes any number, and returns a text that is never freed, or null.
        let text = unsafe { (self.get_error_string)(result) };
        let reason = if text.is_null() {
            format!("error {result}")
        } else {
            // SAFETY: it is not null, and ends with a zero.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(Error::Nccl { function, reason })
    }
}

/// What the loader says.
fn in_words(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Processes, each with a GPU, that compute together.
#[derive(Debug)]
pub(crate) struct Communicator {
    library: Library,
    handle: Handle,
}

impl Communicator {
    /// Joins the communicator of `id` as process `rank` of `world`. Returns when all have.
    pub(crate) fn join(library: &Library, id: UniqueId, rank: usize, world: usize) -> Result<Self> {
        let number = |number: usize| c_int::try_from(number).unwrap_or(c_int::MAX);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is that of a handle which lives on.
        let result = unsafe { (library.comm_init_rank)(&raw mut handle, number(world), id, number(rank)) };
        library.check("ncclCommInitRank", result)?;
        Ok(Self { library: *library, handle })
    }

    /// Asks for the sum of `buffer` over all processes, in its place. What libtorch is asked for afterwards sees it.
    ///
    /// The buffer is a row of f32 or f64, and on the GPU of this process.
    pub(crate) fn sum(&self, buffer: &mut Tensor) -> Result<()> {
        let (kind, pointer, count) = (number_of(buffer.kind()), buffer.data_ptr(), buffer.numel());
        // SAFETY: `count` numbers of this kind lie one after another at the pointer. Libtorch keeps the memory of a tensor that is
        // dropped for whoever asks for some on the same stream, so it is not another's before the sum is there.
        let result =
            unsafe { (self.library.all_reduce)(pointer, pointer, count, kind, SUM, self.handle, std::ptr::null_mut()) };
        self.library.check("ncclAllReduce", result)?;
        self.expect_well()
    }

    /// Asks for the numbers of rank 0 in the place of those of `buffer`.
    pub(crate) fn broadcast(&self, buffer: &mut Tensor) -> Result<()> {
        let (kind, pointer, count) = (number_of(buffer.kind()), buffer.data_ptr(), buffer.numel());
        // SAFETY: as in `sum`.
        let result =
            unsafe { (self.library.broadcast)(pointer, pointer, count, kind, 0, self.handle, std::ptr::null_mut()) };
        self.library.check("ncclBroadcast", result)?;
        self.expect_well()
    }

    /// Fails with what went wrong beside the calls.
    fn expect_well(&self) -> Result<()> {
        let mut error = SUCCESS;
        // SAFETY: the handle is that of a communicator which was not destroyed; the pointer is that of a number which lives on.
        let result = unsafe { (self.library.comm_get_async_error)(self.handle, &raw mut error) };
        self.library.check("ncclCommGetAsyncError", result)?;
        self.library.check("an earlier call", error)
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // SAFETY: the handle is not used again.
        let result = unsafe { (self.library.comm_destroy)(self.handle) };
        if let Err(error) = self.library.check("ncclCommDestroy", result) {
            tracing::warn!(%error, "a communicator was not destroyed");
        }
    }
}

fn number_of(kind: Kind) -> c_int {
    if kind == Kind::Double { FLOAT64 } else { FLOAT32 }
}
