//! libtorch's AdamW in one kernel, `_fused_adamw_`.
//!
//! `tch` has no operation that changes a list of tensors. libtorch calls any operation by its name through a C function.
#![allow(unsafe_code, reason = "a foreign call, of a function that is not among those of `tch`")]

use std::ffi::{c_char, c_void};
use std::ptr;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::{Error, Result};

/// What the kernel goes through: tensors of the same place in each list belong together.
#[derive(Debug)]
pub(crate) struct Tensors<'a> {
    /// The weights.
    pub(crate) weights: &'a [Tensor],
    /// Their gradients, which are left divided by [`scale`](Numbers::scale).
    pub(crate) gradients: &'a [Tensor],
    /// Their first moments.
    pub(crate) first: &'a [Tensor],
    /// Their second moments.
    pub(crate) second: &'a [Tensor],
}

/// The numbers of a step.
#[derive(Debug)]
pub(crate) struct Numbers<'a> {
    /// The number of the step, from 1: [] f32, where the weights are.
    pub(crate) step: &'a Tensor,
    /// What gradients are divided by: [] f32, where the weights are.
    pub(crate) scale: &'a Tensor,
    /// 1 to leave everything as it is, else 0: [] f32, where the weights are.
    pub(crate) skip: &'a Tensor,
    /// Learning rate.
    pub(crate) rate: f64,
    /// Decay of the first and second moment.
    pub(crate) betas: (f64, f64),
    /// Weight decay.
    pub(crate) weight_decay: f64,
    /// Added to the root of the second moment.
    pub(crate) epsilon: f64,
}

/// A step of AdamW; `false` if the kernel cannot be had here. Nothing is changed then.
///
/// # Errors
/// [`Error::Fused`] if it fails: too little memory, or tensors that it does not take.
pub(crate) fn adamw(tensors: &Tensors<'_>, numbers: &Numbers<'_>) -> Result<bool> {
    let Some(library) = library() else { return Ok(false) };
    library.adamw(tensors, numbers).map(|()| true).ok_or(Error::Fused)
}

/// An argument or a list, as `torch/csrc/stable/stableivalue_conversions.h` of libtorch 2.11 packs them into eight bytes.
type Value = u64;

/// The functions of the libtorch that is in the process.
#[derive(Debug)]
struct Library {
    /// `torch_call_dispatcher`: takes over what the arguments own.
    call: unsafe extern "C" fn(*const c_char, *const c_char, *mut Value, u64) -> i32,
    /// `torch_new_list_reserve_size`
    new_list: unsafe extern "C" fn(usize, *mut *mut c_void) -> i32,
    /// `torch_list_push_back`
    push: unsafe extern "C" fn(*mut c_void, Value) -> i32,
    /// `aoti_torch_new_tensor_handle`: one more owner of a tensor.
    share: unsafe extern "C" fn(*mut C_tensor, *mut *mut C_tensor) -> i32,
    /// `operator new(size_t)` of the C++ library that libtorch uses. libtorch frees what an optional argument holds with the
    /// `delete` that belongs to it.
    allocate: unsafe extern "C" fn(usize) -> *mut c_void,
}

/// `TORCH_ABI_VERSION` of libtorch 2.11.0 (`torch/headeronly/version.h`), the version that `tch` is built against.
const VERSION: u64 = (2 << 56) | (11 << 48);

/// `None` where libtorch is not the shared library of Linux on x86-64, the one machine on which this was tried.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn library() -> Option<&'static Library> {
    use std::sync::OnceLock;

    use libloading::os::unix::{Library as Shared, RTLD_LAZY};
    /// Opens only what is loaded already (`dlfcn.h` of Linux).
    const RTLD_NOLOAD: i32 = 4;
    static FOUND: OnceLock<Option<Library>> = OnceLock::new();
    let find = || {
        // SAFETY: nothing is loaded by it, so no initialiser runs.
        let library = unsafe { Shared::open(Some("libtorch_cpu.so"), RTLD_LAZY | RTLD_NOLOAD) }.ok()?;
        // SAFETY: the function has this type in every version, and reads a constant.
        let version = unsafe { library.get::<unsafe extern "C" fn() -> u64>(b"aoti_torch_abi_version\0").ok()?() };
        if version >> 48 != VERSION >> 48 {
            return None;
        }
        // SAFETY: the types are those of the declarations in libtorch 2.11 (`torch/csrc/stable/c/shim.h` and
        // `torch/csrc/inductor/aoti_torch/c/shim.h`), and of `operator new` in the Itanium ABI.
        let found = unsafe {
            Library {
                call: *library.get(b"torch_call_dispatcher\0").ok()?,
                new_list: *library.get(b"torch_new_list_reserve_size\0").ok()?,
                push: *library.get(b"torch_list_push_back\0").ok()?,
                share: *library.get(b"aoti_torch_new_tensor_handle\0").ok()?,
                allocate: *Shared::this().get(b"_Znwm\0").ok()?,
            }
        };
        // It stays for the rest of the process, and the functions with it.
        std::mem::forget(library);
        Some(found)
    };
    FOUND.get_or_init(find).as_ref()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn library() -> Option<&'static Library> {
    None
}

impl Library {
    fn adamw(&self, tensors: &Tensors<'_>, numbers: &Numbers<'_>) -> Option<()> {
        let Tensors { weights, gradients, first, second } = *tensors;
        let Numbers { step, scale, skip, rate, betas, weight_decay, epsilon } = *numbers;
        let steps: Vec<_> = weights.iter().map(|_| step.shallow_clone()).collect();
        let none: &[Tensor] = &[];
        let lists = [weights, gradients, first, second, none, &steps].map(|list| self.list(list));
        let [scale, skip] = [scale, skip].map(|x| self.tensor(x).and_then(|x| self.optional(x)));
        // _fused_adamw_(Tensor[] self, Tensor[] grads, Tensor[] exp_avgs, Tensor[] exp_avg_sqs, Tensor[] max_exp_avg_sqs,
        // Tensor[] state_steps, *, float lr, float beta1, float beta2, float weight_decay, float eps, bool amsgrad,
        // bool maximize, Tensor? grad_scale, Tensor? found_inf)
        let [a, b, c, d, e, f] = lists;
        let (beta1, beta2) = betas;
        let [rate, beta1, beta2, weight_decay, epsilon] = [rate, beta1, beta2, weight_decay, epsilon].map(f64::to_bits);
        let (amsgrad, maximize) = (0, 0);
        let mut arguments =
            [a?, b?, c?, d?, e?, f?, rate, beta1, beta2, weight_decay, epsilon, amsgrad, maximize, scale?, skip?];
        // SAFETY: the arguments are those of the schema above, in its order, each packed as the header says. Lists, tensors and
        // optional values are owned by nobody else, and the function frees them. The tensors of the lists live on through their
        // other owners, and only their numbers are changed.
        let failed =
            unsafe { (self.call)(c"aten::_fused_adamw_".as_ptr(), c"".as_ptr(), arguments.as_mut_ptr(), VERSION) };
        (failed == 0).then_some(())
    }

    /// One more owner of a tensor.
    fn tensor(&self, tensor: &Tensor) -> Option<Value> {
        let mut shared = ptr::null_mut();
        // SAFETY: the pointer is to a living tensor, of which the function makes another handle.
        let failed = unsafe { (self.share)(tensor.as_ptr().cast_mut(), &raw mut shared) };
        (failed == 0 && !shared.is_null()).then_some(shared as Value)
    }

    /// A new list of new owners.
    fn list(&self, tensors: &[Tensor]) -> Option<Value> {
        let mut list = ptr::null_mut();
        // SAFETY: the function makes a list and leaves its address in `list`.
        let failed = unsafe { (self.new_list)(tensors.len(), &raw mut list) };
        if failed != 0 || list.is_null() {
            return None;
        }
        for tensor in tensors {
            let value = self.tensor(tensor)?;
            // SAFETY: the list was made above and not freed.
            if unsafe { (self.push)(list, value) } != 0 {
                return None;
            }
        }
        Some(list as Value)
    }

    /// A value where one may be absent: its address, or null.
    fn optional(&self, value: Value) -> Option<Value> {
        // SAFETY: `operator new` gives room for at least as many bytes, aligned for any number, or throws and ends the process.
        let place = unsafe { (self.allocate)(size_of::<Value>()) }.cast::<Value>();
        // SAFETY: the place was made for one value above, and nobody else knows it.
        unsafe { place.write(value) };
        Some(place as Value)
    }
}
