//! libtorch's AdamW in one kernel, `_fused_adamw_`.
//!
//! `tch` has no operation that changes a list of tensors. libtorch calls any operation by its name through a C function.
#![allow(unsafe_code, reason = "a foreign call, of a function that is not among those of `tch`")]

use ediffi_core::operation::Operations;
use tch::Tensor;

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
    let Some(operations) = Operations::find() else { return Ok(false) };
    run(operations, tensors, numbers).map(|()| true).ok_or(Error::Fused)
}

fn run(operations: &Operations, tensors: &Tensors<'_>, numbers: &Numbers<'_>) -> Option<()> {
    let Tensors { weights, gradients, first, second } = *tensors;
    let Numbers { step, scale, skip, rate, betas, weight_decay, epsilon } = *numbers;
    let steps: Vec<_> = weights.iter().map(|_| step.shallow_clone()).collect();
    let no = || operations.switch(false);
    let arguments = vec![
        operations.tensors(weights)?,
        operations.tensors(gradients)?,
        operations.tensors(first)?,
        operations.tensors(second)?,
        operations.tensors(&[])?,
        operations.tensors(&steps)?,
        operations.number(rate),
        operations.number(betas.0),
        operations.number(betas.1),
        operations.number(weight_decay),
        operations.number(epsilon),
        no(),
        no(),
        operations.optional(operations.tensor(scale)?),
        operations.optional(operations.tensor(skip)?),
    ];
    // SAFETY: _fused_adamw_(Tensor[] self, Tensor[] grads, Tensor[] exp_avgs, Tensor[] exp_avg_sqs, Tensor[] max_exp_avg_sqs,
    // Tensor[] state_steps, *, float lr, float beta1, float beta2, float weight_decay, float eps, bool amsgrad, bool maximize,
    // Tensor? grad_scale, Tensor? found_inf) -> (). The tensors of the lists live on through their other owners, and only their
    // numbers are changed.
    unsafe { operations.call(c"aten::_fused_adamw_", arguments) }
}
