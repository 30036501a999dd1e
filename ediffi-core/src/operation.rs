//! libtorch's operations by their names, through its plain C interface: those that `tch` does not have.
//!
//! An operation takes its arguments packed into eight bytes each, and owns what they refer to from then on
//! (`torch/csrc/stable/stableivalue_conversions.h` of libtorch 2.11). Until then an [`Argument`] owns it, and gives it back when it is
//! dropped: an error on the way to a call loses nothing.
#![allow(unsafe_code, reason = "foreign calls, of functions that are not among those of `tch`")]

use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::ops::Range;
use std::ptr;

use tch::Tensor;
use torch_sys::C_tensor;

/// An argument, an element of a list or a result, packed.
type Value = u64;

/// `TORCH_ABI_VERSION` of libtorch 2.11.0 (`torch/headeronly/version.h`), the version that `tch` is built against.
const VERSION: u64 = (2 << 56) | (11 << 48);

/// `aoti_torch_cpu_mkldnn__convolution_pointwise` of libtorch 2.11 (`torch/csrc/inductor/aoti_torch/c/shim_cpu.h`). A tensor
/// handle there is a pointer to an `at::Tensor`, as `C_tensor` is in `torch-sys`.
pub(crate) type Convolution = unsafe extern "C" fn(
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

/// The functions of the libtorch that is in the process. They are declared in `torch/csrc/stable/c/shim.h` and
/// `torch/csrc/inductor/aoti_torch/c/shim.h` of libtorch 2.11, and give 0 where all is well.
#[derive(Debug, Clone, Copy)]
pub struct Operations {
    /// `torch_call_dispatcher`: takes over what the arguments own, and leaves the results in their place.
    call: unsafe extern "C" fn(*const c_char, *const c_char, *mut Value, u64) -> i32,
    /// `torch_new_list_reserve_size`
    new_list: unsafe extern "C" fn(usize, *mut *mut c_void) -> i32,
    /// `torch_list_push_back`
    push: unsafe extern "C" fn(*mut c_void, Value) -> i32,
    /// `torch_delete_list`: the list, and not what its elements own.
    delete_list: unsafe extern "C" fn(*mut c_void) -> i32,
    /// `aoti_torch_new_tensor_handle`: one more owner of a tensor.
    share: unsafe extern "C" fn(*mut C_tensor, *mut *mut C_tensor) -> i32,
    /// `aoti_torch_delete_tensor_object`: one owner less.
    delete_tensor: unsafe extern "C" fn(*mut C_tensor) -> i32,
    /// `operator new(size_t)` of the C++ library that libtorch uses. libtorch frees what an optional argument holds with the
    /// `delete` that belongs to it.
    allocate: unsafe extern "C" fn(usize) -> *mut c_void,
    /// That `operator delete(void*)`.
    free: unsafe extern "C" fn(*mut c_void),
    /// `torch_parallel_for`: from, end, how many at least for a thread, what does a part of them, and what that is given.
    parallel: unsafe extern "C" fn(i64, i64, i64, unsafe extern "C" fn(i64, i64, *mut c_void), *mut c_void) -> i32,
    /// Of a libtorch with oneDNN.
    pub(crate) convolution: Option<Convolution>,
}

impl Operations {
    /// Those of the libtorch in this process; `None` where it is not the shared library of version 2.11 of Linux on x86-64, the one
    /// machine on which this was tried.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[must_use]
    pub fn find() -> Option<&'static Self> {
        use std::sync::OnceLock;

        use libloading::os::unix::{Library, RTLD_LAZY};
        /// Opens only what is loaded already (`dlfcn.h` of Linux).
        const RTLD_NOLOAD: i32 = 4;
        static FOUND: OnceLock<Option<Operations>> = OnceLock::new();
        let find = || {
            // SAFETY: nothing is loaded by it, so no initialiser runs.
            let library = unsafe { Library::open(Some("libtorch_cpu.so"), RTLD_LAZY | RTLD_NOLOAD) }.ok()?;
            // SAFETY: the function has this type in every version, and reads a constant.
            let version = unsafe { library.get::<unsafe extern "C" fn() -> u64>(b"aoti_torch_abi_version\0").ok()?() };
            if version >> 48 != VERSION >> 48 {
                return None;
            }
            // SAFETY: the types are those of the declarations in libtorch 2.11, which this is, and of the operators in the Itanium ABI.
            let found = unsafe {
                Self {
                    call: *library.get(b"torch_call_dispatcher\0").ok()?,
                    new_list: *library.get(b"torch_new_list_reserve_size\0").ok()?,
                    push: *library.get(b"torch_list_push_back\0").ok()?,
                    delete_list: *library.get(b"torch_delete_list\0").ok()?,
                    share: *library.get(b"aoti_torch_new_tensor_handle\0").ok()?,
                    delete_tensor: *library.get(b"aoti_torch_delete_tensor_object\0").ok()?,
                    allocate: *Library::this().get(b"_Znwm\0").ok()?,
                    free: *Library::this().get(b"_ZdlPv\0").ok()?,
                    parallel: *library.get(b"torch_parallel_for\0").ok()?,
                    convolution: library
                        .get(b"aoti_torch_cpu_mkldnn__convolution_pointwise\0")
                        .ok()
                        .map(|function| *function),
                }
            };
            // It stays for the rest of the process, and the functions with it.
            std::mem::forget(library);
            Some(found)
        };
        FOUND.get_or_init(find).as_ref()
    }

    /// None on this machine: it is not one on which this was tried.
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    #[must_use]
    pub fn find() -> Option<&'static Self> {
        None
    }

    /// Does `count` pieces of work on libtorch's threads, `grain` at least on each. A piece may be done twice, and must not panic.
    pub(crate) fn share_out<W: Fn(Range<usize>) + Sync>(&self, count: usize, grain: usize, work: &W) {
        unsafe extern "C" fn part<W: Fn(Range<usize>)>(from: i64, end: i64, work: *mut c_void) {
            // SAFETY: the pointer is that of `share_out`, which waits for every part.
            let work = unsafe { &*work.cast::<W>() };
            work(from as usize..end as usize);
        }
        let given = ptr::from_ref(work).cast_mut().cast();
        // SAFETY: `part` is that of the type of `work`, which may be shared, and outlives the call.
        let failed = unsafe { (self.parallel)(0, count as i64, grain as i64, part::<W>, given) };
        if failed != 0 {
            work(0..count);
        }
    }

    /// A tensor, of which the argument is one more owner. `None` if libtorch refuses, here and below: there is too little memory.
    #[must_use]
    pub fn tensor(&self, tensor: &Tensor) -> Option<Argument<'_>> {
        let mut shared = ptr::null_mut();
        // SAFETY: the pointer is to a living tensor, of which the function makes another handle.
        let failed = unsafe { (self.share)(tensor.as_ptr().cast_mut(), &raw mut shared) };
        (failed == 0 && !shared.is_null()).then(|| self.own(shared as Value, Held::Tensor))
    }

    /// A list of tensors.
    #[must_use]
    pub fn tensors(&self, tensors: &[Tensor]) -> Option<Argument<'_>> {
        self.list(tensors.iter().map(|tensor| self.tensor(tensor)))
    }

    /// A list of whole numbers.
    #[must_use]
    pub fn integers(&self, values: &[i64]) -> Option<Argument<'_>> {
        self.list(values.iter().map(|&value| Some(self.integer(value))))
    }

    /// A whole number.
    pub fn integer(&self, value: i64) -> Argument<'_> {
        self.own(value.cast_unsigned(), Held::Number)
    }

    /// A number.
    pub fn number(&self, value: f64) -> Argument<'_> {
        self.own(value.to_bits(), Held::Number)
    }

    /// Yes or no.
    pub fn switch(&self, on: bool) -> Argument<'_> {
        self.own(on.into(), Held::Number)
    }

    /// A value where one may be absent.
    pub fn optional<'a>(&'a self, value: Argument<'a>) -> Argument<'a> {
        // SAFETY: the operator gives room for at least as many bytes, aligned for any number, or throws, which ends the process.
        let place = unsafe { (self.allocate)(size_of::<Value>()) }.cast::<Value>();
        // SAFETY: the place was made for one value above, and nobody else knows it.
        unsafe { place.write(value.value) };
        self.own(place as Value, Held::Optional(Box::new(value)))
    }

    /// Calls an operation without an overload that has no results. `None` if it fails; what the arguments own is given back then, too.
    ///
    /// # Safety
    /// The arguments have to be those of the operation's schema, in its order and each of its type.
    #[must_use]
    pub unsafe fn call(&self, name: &CStr, arguments: Vec<Argument<'_>>) -> Option<()> {
        // SAFETY: as the caller promises.
        unsafe { self.run(name, arguments) }.map(drop)
    }

    /// As [`call`](Self::call), of an operation whose one result is a tensor.
    ///
    /// # Safety
    /// As of [`call`](Self::call), and there has to be such a result, and at least one argument.
    #[must_use]
    pub unsafe fn call_for_tensor(&self, name: &CStr, arguments: Vec<Argument<'_>>) -> Option<Tensor> {
        // SAFETY: as the caller promises.
        let results = unsafe { self.run(name, arguments) }?;
        // SAFETY: the first place holds the result, a new `at::Tensor` that nobody else owns.
        results.first().map(|&tensor| unsafe { Tensor::from_ptr(tensor as *mut C_tensor) })
    }

    /// # Safety
    /// As of [`call`](Self::call), and there must not be more results than arguments.
    unsafe fn run(&self, name: &CStr, arguments: Vec<Argument<'_>>) -> Option<Vec<Value>> {
        let mut stack: Vec<Value> = arguments.into_iter().map(Argument::release).collect();
        // SAFETY: the stack has one place for each argument of the schema, as the caller promises. The call unpacks all of them before
        // it computes, and frees what they own, whether it fails or not: only of an operation that does not exist it would not.
        let failed = unsafe { (self.call)(name.as_ptr(), c"".as_ptr(), stack.as_mut_ptr(), VERSION) };
        (failed == 0).then_some(stack)
    }

    fn list<'a>(&'a self, elements: impl ExactSizeIterator<Item = Option<Argument<'a>>>) -> Option<Argument<'a>> {
        let mut list = ptr::null_mut();
        // SAFETY: the function makes a list and leaves its address in `list`.
        let failed = unsafe { (self.new_list)(elements.len(), &raw mut list) };
        if failed != 0 || list.is_null() {
            return None;
        }
        let mut owned = self.own(list as Value, Held::List(Vec::with_capacity(elements.len())));
        for element in elements {
            let element = element?;
            // SAFETY: the list was made above and not freed.
            if unsafe { (self.push)(list, element.value) } != 0 {
                return None;
            }
            if let Held::List(held) = &mut owned.held {
                held.push(element);
            }
        }
        Some(owned)
    }

    fn own<'a>(&'a self, value: Value, held: Held<'a>) -> Argument<'a> {
        Argument { operations: self, value, held }
    }
}

/// An argument of an operation. It owns what it refers to until the call.
#[must_use]
pub struct Argument<'a> {
    operations: &'a Operations,
    value: Value,
    held: Held<'a>,
}

/// What an argument owns.
enum Held<'a> {
    /// Nothing: it is a number, or was given away.
    Number,
    Tensor,
    /// A list, and what its elements own.
    List(Vec<Argument<'a>>),
    /// A place on the heap of C++, and what the value in it owns.
    Optional(Box<Argument<'a>>),
}

impl Argument<'_> {
    /// Gives it away, with all that it owns.
    fn release(mut self) -> Value {
        match std::mem::replace(&mut self.held, Held::Number) {
            Held::Number | Held::Tensor => {}
            Held::List(elements) => {
                for element in elements {
                    element.release();
                }
            }
            Held::Optional(value) => {
                value.release();
            }
        }
        self.value
    }
}

impl Drop for Argument<'_> {
    fn drop(&mut self) {
        let Operations { delete_list, delete_tensor, free, .. } = *self.operations;
        // The elements of a list and the value of an option are dropped after this.
        match &self.held {
            Held::Number => {}
            Held::Tensor => {
                // SAFETY: the handle was made for this argument, and given to nobody else.
                let _ = unsafe { delete_tensor(self.value as *mut C_tensor) };
            }
            Held::List(_) => {
                // SAFETY: so was the list.
                let _ = unsafe { delete_list(self.value as *mut c_void) };
            }
            // SAFETY: so was the place, by the operator that this one belongs to.
            Held::Optional(_) => unsafe { free(self.value as *mut c_void) },
        }
    }
}

impl fmt::Debug for Argument<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = match &self.held {
            Held::Number => "a number",
            Held::Tensor => "a tensor",
            Held::List(_) => "a list",
            Held::Optional(_) => "an option",
        };
        f.debug_tuple("Argument").field(&held).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicIsize, Ordering};

    use tch::{Device, Kind};

    use super::*;

    /// What is owned: tensors, lists and places.
    static OWNED: AtomicIsize = AtomicIsize::new(0);
    /// How many elements lists still take.
    static ROOM: AtomicIsize = AtomicIsize::new(0);

    unsafe extern "C" fn new_list(size: usize, list: *mut *mut c_void) -> i32 {
        OWNED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { (Operations::find().unwrap().new_list)(size, list) }
    }

    unsafe extern "C" fn push(list: *mut c_void, value: Value) -> i32 {
        if ROOM.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return 1;
        }
        // SAFETY: as the caller promises.
        unsafe { (Operations::find().unwrap().push)(list, value) }
    }

    unsafe extern "C" fn delete_list(list: *mut c_void) -> i32 {
        OWNED.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { (Operations::find().unwrap().delete_list)(list) }
    }

    unsafe extern "C" fn share(tensor: *mut C_tensor, shared: *mut *mut C_tensor) -> i32 {
        OWNED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { (Operations::find().unwrap().share)(tensor, shared) }
    }

    unsafe extern "C" fn delete_tensor(tensor: *mut C_tensor) -> i32 {
        OWNED.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { (Operations::find().unwrap().delete_tensor)(tensor) }
    }

    unsafe extern "C" fn allocate(bytes: usize) -> *mut c_void {
        OWNED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { (Operations::find().unwrap().allocate)(bytes) }
    }

    unsafe extern "C" fn free(place: *mut c_void) {
        OWNED.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { (Operations::find().unwrap().free)(place) }
    }

    /// Whatever is made and not given to an operation is given back; what is given to one, it frees by itself.
    #[test]
    fn nothing_is_lost_where_something_fails_on_the_way() {
        let Some(found) = Operations::find() else { return };
        let counting = Operations { new_list, push, delete_list, share, delete_tensor, allocate, free, ..*found };
        let owned = || OWNED.load(Ordering::Relaxed);
        let tensors: Vec<Tensor> = (0..3).map(|_| Tensor::ones([2], (Kind::Float, Device::Cpu))).collect();
        for room in 0..3 {
            ROOM.store(room, Ordering::Relaxed);
            assert!(counting.tensors(&tensors).is_none());
            assert_eq!(owned(), 0, "a list with room for {room}");
        }
        ROOM.store(100, Ordering::Relaxed);
        let list = counting.tensors(&tensors).unwrap();
        assert_eq!(owned(), 4);
        let option = counting.optional(counting.tensor(&tensors[0]).unwrap());
        let numbers = counting.integers(&[1, 2]).unwrap();
        assert_eq!(owned(), 7);
        drop((list, option, numbers));
        assert_eq!(owned(), 0);
    }

    #[test]
    fn an_operation_is_called_by_its_name_and_a_wrong_one_fails() {
        let Some(operations) = Operations::find() else { return };
        let ones = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let arguments =
            |dimensions: &[i64]| vec![operations.tensor(&ones).unwrap(), operations.integers(dimensions).unwrap()];
        // SAFETY: permute(Tensor self, int[] dims) -> Tensor
        let call = |dimensions: &[i64]| unsafe { operations.call_for_tensor(c"aten::permute", arguments(dimensions)) };
        assert_eq!(call(&[1, 0]).unwrap().size(), [3, 2]);
        assert!(call(&[1, 7]).is_none());
    }
}
