"""What pyproject.toml cannot say: benchmarks/ is a package too, installed as tokenmesh_benchmarks."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(".", include=["tokenmesh", "tokenmesh.*"]),
        *find_packages("chaincode"),
        "tokenmesh_benchmarks",
    ]
)
