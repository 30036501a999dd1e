//! Convolutions whose weights lie in the order that oneDNN computes in.
//!
//! libtorch's own convolution brings the weights into that order in every call. That costs most where a U-Net has many channels and
//! few positions. Here it is done once. The results agree with libtorch's to rounding.
#![allow(
    unsafe_code,
    reason = "the operation on packed weights is not among those of `tch`: libtorch has it as a C function"
)]

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::Result;

/// `aoti_torch_cpu_mkldnn__convolution_pointwise` of libtorch 2.11 (`torch/csrc/inductor/aoti_torch/c/shim_cpu.h`). A tensor
/// handle there is a pointer to an `at::Tensor`, as `C_tensor` is in `torch-sys`.
type Convolution = unsafe extern "C" fn(
    x: *mut C_tensor,
    weight: *mut C_tensor,
    bias: *const *mut C_tensor,
    padding: *const i64,
    paddings: i64,
    stride: *const i64,
    strides: i64,
    dilation: *const i64,
    dilations: i64,
    groups: i64,
    activation: *const c_char,
    scalars: *const *const f64,
    scalar_count: i64,
    algorithm: *const *const c_char,
    result: *mut *mut C_tensor,
) -> i32;

/// `aoti_torch_call_dispatcher` of libtorch 2.11 (`torch/csrc/inductor/aoti_torch/c/shim.h`): calls an operation by its name. The
/// stack holds the arguments, and then the results. The function takes over what handles on it refer to.
type Dispatcher = unsafe extern "C" fn(name: *const c_char, overload: *const c_char, stack: *mut u64) -> i32;

/// `torch_new_list_reserve_size` of libtorch 2.11 (`torch/csrc/stable/c/shim.h`): a new list, on the stack of a [`Dispatcher`].
type NewList = unsafe extern "C" fn(size: usize, list: *mut *mut c_void) -> i32;

/// `torch_list_push_back` of libtorch 2.11.
type PushBack = unsafe extern "C" fn(list: *mut c_void, element: u64) -> i32;

/// C++'s `operator new`: an option on the stack of a [`Dispatcher`] is a place of its heap
/// (`torch/csrc/stable/stableivalue_conversions.h`).
type New = unsafe extern "C" fn(bytes: usize) -> *mut c_void;

/// The functions of libtorch that are used here.
#[derive(Clone, Copy)]
struct Functions {
    convolution: Convolution,
    call: Dispatcher,
    new: New,
    new_list: NewList,
    push_back: PushBack,
}

/// Those of the libtorch that is in the process; `None` where it is not the shared library of Linux on x86-64, the one machine on
/// which this was tried.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn functions() -> Option<Functions> {
    use libloading::os::unix::{Library, RTLD_LAZY};
    /// Major and minor version in the uppermost bytes of a version (`torch/headeronly/version.h`).
    const LIBTORCH_2_11: u64 = 2 << 8 | 11;
    /// Opens only what is loaded already (`dlfcn.h` of Linux).
    const RTLD_NOLOAD: i32 = 4;
    static FOUND: OnceLock<Option<Functions>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: nothing is loaded by it, so no initialiser runs.
        let library = unsafe { Library::open(Some("libtorch_cpu.so"), RTLD_LAZY | RTLD_NOLOAD) }.ok()?;
        // SAFETY: the function has this type in every version.
        let version = unsafe { library.get::<unsafe extern "C" fn() -> u64>(b"aoti_torch_abi_version\0") }.ok()?;
        // SAFETY: it takes nothing and reads a constant.
        if unsafe { version() } >> 48 != LIBTORCH_2_11 {
            return None;
        }
        // SAFETY: the types are those of the declarations in libtorch 2.11, which this is.
        let found = unsafe {
            library.get(b"aoti_torch_cpu_mkldnn__convolution_pointwise\0").ok().and_then(|convolution| {
                Some(Functions {
                    convolution: *convolution,
                    call: *library.get(b"aoti_torch_call_dispatcher\0").ok()?,
                    new: *Library::this().get(b"_Znwm\0").ok()?,
                    new_list: *library.get(b"torch_new_list_reserve_size\0").ok()?,
                    push_back: *library.get(b"torch_list_push_back\0").ok()?,
                })
            })
        };
        // It stays for the rest of the process, and the functions with it.
        std::mem::forget(library);
        found
    })
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn functions() -> Option<Functions> {
    None
}

impl Functions {
    /// `mkldnn::_reorder_convolution_weight(weight, padding, stride, dilation 1, groups 1, input size)`: a copy of a dense weight in
    /// oneDNN's order; `None` if oneDNN refuses.
    fn reorder(self, weight: &Tensor, stride: i64, padding: i64, size: &[i64]) -> Option<Tensor> {
        let list = |values: &[i64]| {
            let mut list = ptr::null_mut();
            // SAFETY: `list` outlives the call, which writes a new list to it.
            let failed = unsafe { (self.new_list)(values.len(), &raw mut list) } != 0 || list.is_null();
            // SAFETY: the list is the one that was just made.
            let push = |value: &i64| unsafe { (self.push_back)(list, value.cast_unsigned()) } == 0;
            (!failed && values.iter().all(push)).then_some(list as u64)
        };
        let [padding, stride, dilation] = [list(&[padding; 2])?, list(&[stride; 2])?, list(&[1; 2])?];
        let size = list(size)?;
        // SAFETY: the operator gives eight bytes, aligned for a number of as many, or throws, which ends the process.
        let option = unsafe { (self.new)(size_of::<u64>()) }.cast::<u64>();
        // SAFETY: the place was just made. The call frees it with the operator's counterpart.
        unsafe { option.write(size) };
        // A handle of its own, which the call takes over.
        let weight = std::mem::ManuallyDrop::new(weight.shallow_clone());
        let mut stack = [weight.as_ptr() as u64, padding, stride, dilation, 1, option as u64];
        // SAFETY: the stack has one place for each argument of the operation's schema, in its order: a tensor's handle, three lists,
        // a number, and an option that holds a list. There are more of them than results.
        let failed =
            unsafe { (self.call)(c"mkldnn::_reorder_convolution_weight".as_ptr(), c"".as_ptr(), stack.as_mut_ptr()) };
        let [packed, ..] = stack;
        // SAFETY: the first place holds the result, a new `at::Tensor` that nobody else owns.
        (failed == 0).then(|| unsafe { Tensor::from_ptr(packed as *mut C_tensor) })
    }
}

/// Whether weights of this kind can be packed on this machine.
pub(super) fn packs(device: Device, kind: Kind) -> bool {
    // As libtorch asks before it computes in bf16 (`mkldnn_bf16_device_check`), processors without AVX-512 aside.
    #[cfg(target_arch = "x86_64")]
    let bf16 = std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512dq");
    #[cfg(not(target_arch = "x86_64"))]
    let bf16 = false;
    device == Device::Cpu && (kind == Kind::Float || kind == Kind::BFloat16 && bf16) && functions().is_some()
}

/// The weight of a convolution, packed for maps of one size. The best order depends on it, and a weight in another one would be brought
/// into it in every call, slowly. The number of rows does not matter.
#[derive(Debug)]
pub(super) struct PackedWeight {
    weight: Tensor,
    inputs: i64,
    kernel: i64,
    /// Height and width of the maps.
    sides: (i64, i64),
}

impl PackedWeight {
    /// Packs a copy of a weight for maps like `x`; `None` where oneDNN refuses.
    ///
    /// # Shapes
    /// `weight`: [outputs, inputs, kernel, kernel], `x`: [n, inputs, h, w]
    ///
    /// # Errors
    /// Tensors that are not four-dimensional.
    pub(super) fn new(weight: &Tensor, x: &Tensor, stride: i64, padding: i64) -> Result<Option<Self>> {
        let (_, inputs, kernel, _) = weight.size4()?;
        let (_, _, height, width) = x.size4()?;
        let weight = functions().and_then(|functions| functions.reorder(weight, stride, padding, &x.size()));
        Ok(weight.map(|weight| Self { weight, inputs, kernel, sides: (height, width) }))
    }

    /// The kind of the weight.
    pub(super) fn kind(&self) -> Kind {
        self.weight.kind()
    }

    /// Whether it was packed for maps of the size of `x`.
    pub(super) fn is_for(&self, x: &Tensor) -> bool {
        matches!(*x.size().as_slice(), [_, _, height, width] if (height, width) == self.sides)
    }

    /// Convolves `x`; `None` if it does not fit, is of another kind or device than the weight, or needs gradients, which this operation
    /// does not give, or if oneDNN refuses it. libtorch's own operation then computes it, or says what is wrong.
    ///
    /// # Errors
    /// An `x` that is not four-dimensional.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        stride: i64,
        padding: i64,
    ) -> Result<Option<Tensor>> {
        let (n, channels, height, width) = x.size4()?;
        let reach = self.kernel - 2 * padding;
        let fits = channels == self.inputs && n > 0 && height >= reach && width >= reach && height > 0 && width > 0;
        let same = x.kind() == self.weight.kind() && x.device() == Device::Cpu;
        let same = same && bias.is_none_or(|bias| bias.kind() == x.kind());
        let Some(Functions { convolution, .. }) = functions().filter(|_| fits && same && !x.requires_grad()) else {
            return Ok(None);
        };
        let (padding, stride, dilation) = ([padding; 2], [stride; 2], [1_i64; 2]);
        let bias = bias.map(|bias| bias.as_ptr().cast_mut());
        let mut result = ptr::null_mut();
        // SAFETY: every pointer is to a value that outlives the call. The handles are those of living tensors, which the
        // function does not change. The lists have the lengths that are given with them. Where a list is empty or an option
        // is absent, the declaration asks for a null pointer.
        let failed = unsafe {
            convolution(
                x.as_ptr().cast_mut(),
                self.weight.as_ptr().cast_mut(),
                bias.as_ref().map_or(ptr::null(), ptr::from_ref),
                padding.as_ptr(),
                2,
                stride.as_ptr(),
                2,
                dilation.as_ptr(),
                2,
                1,
                c"none".as_ptr(),
                ptr::null(),
                0,
                ptr::null(),
                &raw mut result,
            )
        };
        if failed != 0 || result.is_null() {
            return Ok(None);
        }
        // SAFETY: the function gives a new `at::Tensor` of its own, which nobody else owns.
        Ok(Some(unsafe { Tensor::from_ptr(result) }))
    }

    /// The weight as it was before it was packed.
    ///
    /// # Errors
    /// Too little memory.
    pub(super) fn unpacked(&self) -> Result<Tensor> {
        Ok(self.weight.f_to_dense(None, false)?)
    }
}
