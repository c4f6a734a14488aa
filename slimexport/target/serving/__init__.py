"""A bundle as a service: a runtime that keeps deadlines by choosing a width for every batch. No torch."""
