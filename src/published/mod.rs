//! What the folders of published models have in common: diffusers' layout, with a `model_index.json` that says what a folder holds.

mod index;
mod kind;
mod owners;
mod rest;
mod unusable;
#[cfg(test)]
pub(crate) mod warnings;
pub(crate) mod weights;

#[cfg(feature = "hub")]
pub(crate) use index::Part;
pub(crate) use index::{INDEX_FILE, Index};
pub(crate) use kind::{Family, family, is_published};
pub(crate) use owners::{Owner, owners};
pub(crate) use unusable::unusable;
