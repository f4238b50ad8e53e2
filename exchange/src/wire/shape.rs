//! The faults in the shape of a JSON body: members missing, unknown, doubled, of another type.
//!
//! serde ends at the first fault and says it in words. A body that it has refused is read once more, into a tree, and
//! the same type is asked for from a deserializer that notes each fault, gives a value of the kind that is asked for in
//! its place, and goes on. Nothing but the faults comes of it. A member of an object is named by its name in the type,
//! one of a map only by its place, because that name is the caller's own. Pure functions; nothing to lose.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use schemas::codes::Rule;
use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer as _, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::refusal::{Fault, MAX_FAULTS};

/// Every fault of a body's shape, in the order of the body; none where only the values can be wrong.
///
/// # Errors
/// The text is not JSON.
pub(crate) fn faults<'a, T: Deserialize<'a>>(text: &str) -> Result<Vec<Fault>, serde_json::Error> {
    let node: Node = serde_json::from_str(text)?;
    let faults = RefCell::default();
    let whole = Part { node: Some(&node), path: Path::Whole, faults: Some(&faults) };
    // A type that refuses a value for a reason of its own says nothing of the shape.
    let _ = T::deserialize(whole);
    Ok(faults.into_inner())
}

/// JSON as it was sent, doubled members too.
enum Node {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;
        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Number(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Number(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(serde_json::Number::from_f64(value).map_or(Node::Null, Node::Number))
            }

            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Node::Object(members))
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// Where a part lies in the body.
#[derive(Clone, Copy)]
enum Path<'a> {
    Whole,
    Member(&'a Self, &'static str),
    Item(&'a Self, usize),
    /// A member of a map, by its place from 1.
    Unnamed(&'a Self, usize),
}

impl Path<'_> {
    /// Writes the pointer, as far as names are known: up to a map, of which the member's place is given back.
    fn write(&self, pointer: &mut String) -> Option<usize> {
        match self {
            Self::Whole => None,
            Self::Unnamed(parent, position) => parent.write(pointer).or(Some(*position)),
            Self::Member(parent, name) => parent.write(pointer).or_else(|| {
                pointer.push('/');
                pointer.push_str(name);
                None
            }),
            Self::Item(parent, place) => parent.write(pointer).or_else(|| {
                pointer.push('/');
                pointer.push_str(&place.to_string());
                None
            }),
        }
    }

    fn fault(&self, rule: Rule) -> Fault {
        let mut pointer = String::new();
        let position = self.write(&mut pointer);
        position.into_iter().fold(Fault::at(pointer, rule), Fault::position)
    }
}

/// A part of the body, or what stands in the place of a part that is not there.
#[derive(Clone, Copy)]
struct Part<'a> {
    node: Option<&'a Node>,
    path: Path<'a>,
    /// Nothing is noted below a fault.
    faults: Option<&'a RefCell<Vec<Fault>>>,
}

impl Part<'_> {
    /// Notes a fault, which is made only where it is kept.
    fn note(&self, fault: impl FnOnce() -> Fault) {
        if let Some(faults) = self.faults.filter(|_| !self.is_full()) {
            faults.borrow_mut().push(fault());
        }
    }

    /// Whether nobody is told of more: the rest of the body is not looked at.
    fn is_full(&self) -> bool {
        self.faults.is_some_and(|faults| faults.borrow().len() >= MAX_FAULTS)
    }

    /// Notes that what was asked for is not here.
    fn is_no(&self, what: &'static str) {
        match self.node {
            None => self.note(|| self.path.fault(Rule::Required).form(what)),
            Some(_) => self.note(|| self.path.fault(Rule::Type).form(what)),
        }
    }

    fn whole_number(&self, max: u64) -> u64 {
        let Some(Node::Number(number)) = self.node else {
            self.is_no("whole number");
            return 0;
        };
        match number.as_u64() {
            Some(number) if number <= max => number,
            Some(_) => {
                self.note(|| {
                    self.path.fault(Rule::Range).bounds(0, usize::try_from(max).unwrap_or(usize::MAX))
                });
                0
            }
            None => {
                self.is_no("whole number");
                0
            }
        }
    }
}

type Error = serde::de::value::Error;

impl<'de> Deserializer<'de> for Part<'_> {
    type Error = Error;

    /// Asked for where any JSON is right.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Some(Node::Bool(value)) = self.node else {
            self.is_no("true or false");
            return visitor.visit_bool(false);
        };
        visitor.visit_bool(*value)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.whole_number(u8::MAX.into()))
    }

    /// No document has a number below 0.
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.whole_number(u64::from(i32::MAX.unsigned_abs())))
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.whole_number(u16::MAX.into()))
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.whole_number(u32::MAX.into()))
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.whole_number(u64::MAX))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Some(Node::Text(text)) = self.node else {
            self.is_no("string");
            return visitor.visit_str("");
        };
        visitor.visit_str(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            None | Some(Node::Null) => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let items = if let Some(Node::List(items)) = self.node {
            items.as_slice()
        } else {
            self.is_no("array");
            &[]
        };
        visitor.visit_seq(Items { items, at: 0, of: &self })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let members = if let Some(Node::Object(members)) = self.node {
            members.as_slice()
        } else {
            self.is_no("object");
            &[]
        };
        let members = Members { members, at: 0, of: &self, names: None, seen: HashSet::new(), next: None };
        visitor.visit_map(members)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (of, members) = if let Some(Node::Object(members)) = self.node {
            (self, members.as_slice())
        } else {
            self.is_no("object");
            (Part { faults: None, ..self }, [].as_slice())
        };
        let members =
            Members { members, at: 0, of: &of, names: Some(names), seen: HashSet::new(), next: None };
        visitor.visit_map(members)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let first = variants.first().copied().unwrap_or_default();
        let variant = match self.node {
            Some(Node::Text(text)) => {
                variants.iter().copied().find(|variant| variant == text).unwrap_or_else(|| {
                    self.note(|| {
                        let fault = self.path.fault(Rule::OneOf).one_of(variants.iter().copied());
                        fault.got(text.chars().count())
                    });
                    first
                })
            }
            None => {
                self.note(|| self.path.fault(Rule::Required).one_of(variants.iter().copied()));
                first
            }
            // A variant with content of its own is the only member of an object.
            Some(Node::Object(members))
                if let [(name, content)] = members.as_slice()
                    && let Some(variant) = variants.iter().copied().find(|variant| variant == name) =>
            {
                let path = Path::Member(&self.path, variant);
                let content = Part { node: Some(content), path, faults: self.faults };
                return visitor.visit_enum(Tagged { variant, content });
            }
            Some(_) => {
                self.is_no("string");
                first
            }
        };
        visitor.visit_enum(variant.into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i64 i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// A variant with its content.
struct Tagged<'a> {
    variant: &'static str,
    content: Part<'a>,
}

impl<'de> EnumAccess<'de> for Tagged<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let variant: StrDeserializer<'_, Error> = self.variant.into_deserializer();
        seed.deserialize(variant).map(|value| (value, self))
    }
}

impl<'de> VariantAccess<'de> for Tagged<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.content.is_no("string");
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.content)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.content.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.content.deserialize_struct("", fields, visitor)
    }
}

struct Items<'a> {
    items: &'a [Node],
    at: usize,
    of: &'a Part<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(node) = self.items.get(self.at).filter(|_| !self.of.is_full()) else { return Ok(None) };
        let path = Path::Item(&self.of.path, self.at);
        self.at += 1;
        seed.deserialize(Part { node: Some(node), path, faults: self.of.faults }).map(Some)
    }
}

/// The members of an object; of a struct first those that were sent, then those that were not.
struct Members<'a> {
    members: &'a [(String, Node)],
    at: usize,
    of: &'a Part<'a>,
    /// The names that a struct has.
    names: Option<&'static [&'static str]>,
    seen: HashSet<&'a str>,
    /// The member that was named and is to be read.
    next: Option<(Option<&'static str>, Option<&'a Node>)>,
}

impl<'a> Members<'a> {
    /// The next member with its name.
    fn advance(&mut self) -> Option<&'a str> {
        while let Some((name, node)) = self.members.get(self.at) {
            if self.of.is_full() {
                return None;
            }
            self.at += 1;
            let own = self.names.map(|names| names.iter().copied().find(|own| own == name));
            let at = |rule| Path::Unnamed(&self.of.path, self.at).fault(rule);
            if own == Some(None) {
                self.of
                    .note(|| at(Rule::UnknownMember).one_of(self.names.unwrap_or_default().iter().copied()));
            } else if !self.seen.insert(name) {
                self.of.note(|| match own.flatten() {
                    Some(own) => Path::Member(&self.of.path, own).fault(Rule::DuplicateMember),
                    None => at(Rule::DuplicateMember),
                });
            } else {
                self.next = Some((own.flatten(), Some(node)));
                return Some(name);
            }
        }
        let missing = self.names?.iter().copied().find(|name| !self.seen.contains(name))?;
        self.seen.insert(missing);
        self.next = Some((Some(missing), None));
        Some(missing)
    }
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(name) = self.advance() else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (name, node) = self.next.take().ok_or_else(|| Error::custom("no member was named"))?;
        let path = match name {
            Some(name) => Path::Member(&self.of.path, name),
            None => Path::Unnamed(&self.of.path, self.at),
        };
        seed.deserialize(Part { node, path, faults: self.of.faults })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct List {
        #[expect(dead_code, reason = "what it holds is not looked at")]
        items: Vec<Item>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        #[expect(dead_code, reason = "what it holds is not looked at")]
        name: String,
    }

    #[test]
    fn no_more_faults_are_made_than_are_told() {
        let wrong = |items: String| faults::<List>(&format!("{{\"items\":[{items}]}}")).expect("JSON").len();
        assert_eq!(wrong("0,0,0".to_owned()), 3);
        assert_eq!(wrong(["0"; 5_000].join(",")), MAX_FAULTS);
        let unknown: Vec<String> = (0..20_000).map(|number| format!("\"m{number}\":0")).collect();
        assert_eq!(wrong(format!("{{{}}}", unknown.join(","))), MAX_FAULTS);
    }
}
