//! What Culvert knows of each database engine: versions, parameters, sizes, and the plan of a change.
