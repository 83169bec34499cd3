//! The setters of builders.

/// Defines setters: `fn name(argument: Type) { change }` in the invocation becomes a public method that takes the
/// builder, makes the change, and gives the builder back. The invocation begins with the name of the builder in the
/// changes.
///
/// ```ignore
/// impl Filter {
///     setters! { filter =>
///         /// At most this many jobs.
///         fn limit(limit: u32) { filter.limit = limit }
///     }
/// }
/// ```
macro_rules! setters {
    ($builder:ident => $($(#[$meta:meta])* fn $name:ident($($argument:ident: $type:ty),*) $change:block)*) => {$(
        $(#[$meta])*
        pub fn $name(mut self, $($argument: $type),*) -> Self {
            let $builder = &mut self;
            $change;
            self
        }
    )*};
}

pub(crate) use setters;
