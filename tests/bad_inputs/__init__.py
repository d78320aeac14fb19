"""Bad inputs, and the sentence that answers each: the tests and a page of the documentation."""
