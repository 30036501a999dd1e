//! How the layouts of this library stand in a file: `"layout": NAME` beside a layout's keys, or `"layout": { NAME: OWN }`.

use std::collections::BTreeMap;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer, MapAccess};
use serde::{Serialize, Serializer};
use serde_json::Value;

/// What a layout writes beside its name.
pub(super) trait Stored: Sized {
    /// What stands with the name; `()` for nothing.
    type Own: Serialize + DeserializeOwned;
    /// The other keys.
    type Keys: Serialize + DeserializeOwned;

    fn stored(&self) -> (&Self::Own, &Self::Keys);

    fn from_stored(own: Self::Own, keys: Self::Keys) -> Self;
}

#[derive(Serialize)]
struct File<'a, N, K> {
    layout: N,
    #[serde(flatten)]
    keys: &'a K,
}

pub(super) fn store<L: Stored, S: Serializer>(name: &str, layout: &L, serializer: S) -> Result<S::Ok, S::Error> {
    let (own, keys) = layout.stored();
    match serde_json::to_value(own).map_err(serde::ser::Error::custom)? {
        Value::Null => File { layout: name, keys }.serialize(serializer),
        _ => File { layout: BTreeMap::from([(name, own)]), keys }.serialize(serializer),
    }
}

/// A layout from what stands with its name, and from the other keys as they are read: so an error has its line.
pub(super) fn restored<'de, L: Stored, A: MapAccess<'de>>(own: Value, keys: Entries<A>) -> Result<L, A::Error> {
    let keys = <L::Keys as serde::Deserialize>::deserialize(MapAccessDeserializer::new(keys))?;
    Ok(L::from_stored(serde_json::from_value(own).map_err(A::Error::custom)?, keys))
}

/// The entries that stand before `layout`, then those after it.
pub(super) struct Entries<A> {
    pub(super) before: std::vec::IntoIter<(String, Value)>,
    pub(super) value: Option<Value>,
    pub(super) after: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some((key, value)) = self.before.next() else { return self.after.next_key_seed(seed) };
        self.value = Some(value);
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(value).map_err(A::Error::custom),
            None => self.after.next_value_seed(seed),
        }
    }
}
