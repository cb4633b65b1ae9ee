"""Diagnosis-guided bootstrapping: image and label give a report, a filter judges it, records remain."""
